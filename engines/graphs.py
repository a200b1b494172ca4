"""The graphs that engines are built from: found, fixed to a size, or exported now.

A model that ships as graphs of any size (nano, or a folder given as --model) is only fixed to the
canvas, which takes a moment; any other is exported. Either result stays in the cache, named by
what decided it, so that the next build finds it.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from vr_trt.engines import export_process, static_graph
from vr_trt.engines.cache import MANIFEST, Canvas
from vr_trt.engines.child import Moment
from vr_trt.engines.onnx_file import OnnxFile, data_files, read_onnx
from vr_trt.engines.spec import DIGEST_LETTERS, file_name
from vr_trt.engines.store import Store, cache_folder, writing
from vr_trt.errors import ModelError
from vr_trt.export.weights_hashes import hash_file, hash_once
from vr_trt.kernels.detail import PUBLISHED_DETAIL

_CALLS = ("image", "start", "step")
_HALVES = tuple(f"{half}_{call}" for half in ("fine", "coarse") for call in ("start", "step"))
NETWORK_STAGES = {
    "encoder": tuple(f"encode_{call}" for call in (*_CALLS, *_HALVES)),
    "generator": ("generator", "generator_image"),
    "decoder": tuple(f"decode_{call}" for call in (*_CALLS, *_HALVES)),
}
CUTS = tuple(f"{verb}_{half}" for verb in ("encode", "decode") for half in _HALVES)
WHOLE = tuple(f"{verb}_{call}" for verb in ("encode", "decode") for call in ("start", "step"))
_PICTURE = "generator_image"  # an any-size generator is fixed to one latent for it
STAGES = tuple(stage for stages in NETWORK_STAGES.values() for stage in stages)
_SHIPPED = Path(__file__).parent  # nano/ in the package
# What a graph depends on beside the weights: the code that traces it, and what that stands on.
_TRACERS = ("torch", "onnxscript", "onnx-ir")
_NOT_TRACING = ("weights", "parity")
_TEXTS = ("embeddings/pos_emb.pt", "nano/weights/text.safetensors")  # that the networks hold


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRequest:
    """Which graphs are wanted."""

    model: str  # a name, or a folder that holds one
    canvas: Canvas
    profile: str
    precision: str | None = None  # None: as they ship, else `default_precision`
    default_precision: str = "fp16"
    cut: bool | None = None  # the VAE by resolution; None: as they ship, else `default_cut`
    default_cut: bool = False
    stages: tuple[str, ...] = ()  # empty: all that the model has
    generator_file: Path | None = None
    vae_file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphs:
    """Graphs on disk, all of one canvas."""

    model: str
    weights: Mapping[str, str]  # file -> sha256
    precision: str
    cut: bool
    files: Mapping[str, Path]  # by stage
    seconds: float  # that making them took, now or before; 0 where they came ready
    is_new: bool = False
    gate: Mapping[str, Any] | None = None  # of fp8: the verdict, see `vr_trt.engines.gate`
    detail: Sequence[float] = PUBLISHED_DETAIL  # see `vr_trt.kernels.detail`

    def precision_of(self, stage: str) -> str:
        """Of one stage: only the generator is ever in fp8, the VAE is in fp16 beside it."""
        is_generator = stage in NETWORK_STAGES["generator"]
        return "fp16" if self.precision == "fp8" and not is_generator else self.precision

    def weights_of(self, stage: str) -> dict[str, str]:
        """The hashes of the weights that `stage` has: those of the generator or of the VAE."""
        if len(self.weights) != 2:  # one file for both
            return dict(self.weights)
        generator, vae = self.weights  # in the order of an export's manifest
        name = generator if stage in NETWORK_STAGES["generator"] else vae
        return {name: self.weights[name]}

    def read(self, stage: str) -> OnnxFile:
        """The graph of `stage`, hashed."""
        return read_onnx(self.files[stage])


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowTables:
    """What the window tables of an any-size generator depend on beside its size."""

    text_tokens: int
    head_width: int
    rope: Literal["language", "pixel"]


def graph_store(cache: Path | None = None) -> Store:
    """Where graphs are kept."""
    return Store((cache or cache_folder()) / "graphs")


def find_graphs(
    request: GraphRequest, watch: Callable[[Moment], None], cache: Path | None = None
) -> Graphs:
    """The graphs of `request`, made now if they are not there.

    ModelError for a model that is unknown or not here, or a folder that does not hold what is asked.
    """
    source = _source(request, watch)
    if isinstance(source, Graphs):
        return source
    return _found_or_made(request, graph_store(cache), source)


def existing_graphs(request: GraphRequest, cache: Path | None = None) -> Graphs | None:
    """The graphs of `request` if they need not be made, else None; ModelError as `find_graphs`."""
    source = _source(request, lambda moment: None)
    if isinstance(source, Graphs):
        return source
    return _found(request, graph_store(cache), source)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """Graphs that are made into a folder of the cache called `name`."""

    name: str
    make: Callable[[Path], None]
    gate: Mapping[str, Any] | None = None  # of fp8, as it is now: it may come after the graphs


def _source(request: GraphRequest, watch: Callable[[Moment], None]) -> Graphs | _Source:
    shipped = _shipped_folder(request.model)
    if shipped is None:
        return _exported(request, watch)
    manifest = _read_manifest(shipped)
    other_cut = request.cut not in (None, is_cut(manifest["stages"]))
    other_precision = request.precision not in (None, manifest["precision"])
    if shipped.parent == _SHIPPED and (other_cut or other_precision):
        return _exported(request, watch)
    if other_precision:
        raise ModelError(
            f"{shipped} holds {manifest['precision']} graphs, not {request.precision}: export the "
            f"model with --precision {request.precision}"
        )
    if not is_generator_only(manifest["stages"]):
        _check_stages(request.stages, is_cut(manifest["stages"]))
    if manifest["shape"] is None:
        return _fixed(request, shipped, manifest)
    return _graphs(request, shipped, manifest)


def _shipped_folder(model: str) -> Path | None:
    for folder in (_SHIPPED / model, Path(model)):
        if (folder / MANIFEST).is_file():
            return folder
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"model", "precision", "shape", "stages", "sha256", "weights"} - manifest.keys()
    except (AttributeError, OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}; export the model again") from None
    if missing:
        raise ModelError(f"{path} lacks {', '.join(sorted(missing))}: export the model again")
    return manifest


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _graphs(request: GraphRequest, folder: Path, manifest: Mapping[str, Any]) -> Graphs:
    if absent := [stage for stage in request.stages if stage not in manifest["stages"]]:
        raise ModelError(f"{folder} has no stage {', '.join(absent)}: export the model again")
    if manifest["shape"] is not None:
        _check_canvas(request.canvas, folder, manifest["shape"])
    cut = is_cut(manifest["stages"])
    if request.cut not in (None, cut) and not is_generator_only(manifest["stages"]):
        raise ModelError(
            f"{folder} holds a VAE {'cut by resolution' if cut else 'in one piece'}: export the "
            f"model with {'--whole' if cut else '--cut'}"
        )
    for name, expected in manifest["sha256"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ModelError(f"{path} is missing: export the model again")
        if hash_once(path) != expected:
            raise ModelError(f"{path} is damaged or foreign: export the model again")
    return Graphs(
        model=manifest["model"],
        weights=manifest["weights"],
        precision=manifest["precision"],
        cut=cut,
        files={
            stage: folder / manifest["stages"][stage]
            for stage in STAGES
            if stage in (request.stages or manifest["stages"])
        },
        seconds=manifest.get("seconds", 0.0),
        gate=_gate(manifest),
        detail=manifest.get("detail", PUBLISHED_DETAIL),
    )


def is_cut(stages: Iterable[str]) -> bool:
    """Whether the stages are those of a VAE that is cut by resolution."""
    return bool({*stages} & {*CUTS})


def is_generator_only(stages: Iterable[str]) -> bool:
    """Whether no stage is the VAE's."""
    return not {*stages} - {*NETWORK_STAGES["generator"]}


def _gate(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    fp8 = manifest.get("fp8")
    return fp8.get("gate") if isinstance(fp8, dict) else None


def _check_canvas(wanted: Canvas, folder: Path, shape: Mapping[str, int]) -> None:
    found = Canvas(**{name: shape[name] for name in Canvas.__dataclass_fields__})
    if found != wanted:
        raise ModelError(
            f"{folder} holds graphs of {found} pixels, {found.latents} latents and {found.step} a "
            f"step, not {wanted}, {wanted.latents} and {wanted.step}: export the model at that size"
        )


def _fixed(request: GraphRequest, shipped: Path, manifest: Mapping[str, Any]) -> _Source:
    """The shipped graphs of any size, fixed to the canvas."""
    _graphs(replace(request, stages=()), shipped, manifest)  # checks them
    key = {
        "sha256": manifest["sha256"],
        "canvas": asdict(request.canvas),
        "recipe": static_graph.RECIPE,
    }
    tables = WindowTables(**{n: manifest[n] for n in WindowTables.__dataclass_fields__})

    def make(folder: Path) -> None:
        stages = {**manifest["stages"], _PICTURE: f"{_PICTURE}.onnx"}
        for stage, name in stages.items():
            original = shipped / manifest["stages"]["generator" if stage == _PICTURE else stage]
            latents = 1 if stage == _PICTURE else request.canvas.latents
            canvas = replace(request.canvas, latents=latents)
            static_graph.fix_size(original, folder / name, canvas, tables)
            for data in data_files(original):
                if not (folder / data.name).exists():
                    shutil.copyfile(data, folder / data.name)
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        made = {**manifest, "shape": asdict(request.canvas), "stages": stages, "sha256": files}
        _write_manifest(folder, made)

    name = _name(request, manifest["model"], manifest["precision"], key)
    return _Source(name=name, make=make, gate=_gate(manifest))


def _exported(request: GraphRequest, watch: Callable[[Moment], None]) -> _Source:
    """The graphs exported from weights."""
    precision = request.precision or request.default_precision
    cut = request.default_cut if request.cut is None else request.cut
    wanted_stages = set(request.stages or STAGES)
    _check_stages(request.stages, cut)
    networks = [name for name, stages in NETWORK_STAGES.items() if wanted_stages & {*stages}]
    wanted = export_process.Export(
        model=request.model,
        profile=request.profile,
        canvas=request.canvas,
        precision=precision,
        cut=cut,
        networks=networks,
        generator_file=request.generator_file,
        vae_file=request.vae_file,
    )
    key = {
        "weights": export_process.weights_hashes(wanted),
        "canvas": asdict(request.canvas),
        "precision": precision,
        "cut": cut,
        "networks": networks,
        "exporter": exporter_fingerprint(),
    }
    calibration = export_process.calibration_of(wanted)
    if calibration:
        key["calibration"] = calibration.sha256
    return _Source(
        name=_name(request, request.model, precision, key),
        make=lambda folder: export_process.export_in_process(wanted, folder, watch),
        gate=calibration.gate if calibration else None,
    )


def _check_stages(stages: Sequence[str], cut: bool) -> None:
    if odd := [stage for stage in stages if stage in (WHOLE if cut else CUTS)]:
        raise ModelError(
            f"{', '.join(odd)} is no stage of a VAE {'cut by resolution' if cut else 'in one piece'}: "
            f"give {'--whole' if cut else '--cut'} as well"
        )


def _found_or_made(request: GraphRequest, store: Store, source: _Source) -> Graphs:
    if found := _found(request, store, source):
        return found
    start = time.monotonic()
    with store.lock(source.name):
        if found := _found(request, store, source):  # by another process, meanwhile
            return found
        with store.publishing(source.name) as folder, writing(store.root):
            source.make(folder)
            whole = {**_read_manifest(folder), "seconds": round(time.monotonic() - start, 2)}
            _write_manifest(folder, whole)
    place = store.path(source.name)
    made = _graphs(request, place, _read_manifest(place))
    return replace(made, is_new=True, gate=source.gate)


def _found(request: GraphRequest, store: Store, source: _Source) -> Graphs | None:
    """The graphs that lie there; None where there are none, or what lies there is damaged."""
    place = store.path(source.name)
    if not (place / MANIFEST).is_file():
        return None
    try:
        return replace(_graphs(request, place, _read_manifest(place)), gate=source.gate)
    except ModelError:
        return None


def _name(request: GraphRequest, model: str, precision: str, key: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    size = f"{request.canvas}-t{request.canvas.latents}k{request.canvas.step}"
    return f"{file_name(model)}-{file_name(precision)}-{size}-{digest[:DIGEST_LETTERS]}"


def exporter_fingerprint() -> str:
    """The hash of what a graph is made from beside the weights: code, texts, packages' versions."""
    export, kernels = (Path(__file__).parent.with_name(name) for name in ("export", "kernels"))
    sources = [path for room in (export, kernels) for path in sorted(room.glob("*.py"))]
    files = [path for path in sources if not path.name.startswith(_NOT_TRACING)]
    whole = hashlib.sha256()
    for path in (*files, *(export / text for text in _TEXTS)):
        whole.update(path.read_bytes())
    for package in _TRACERS:
        try:
            whole.update(f"{package} {version(package)}\n".encode())
        except PackageNotFoundError:
            continue
    return whole.hexdigest()
