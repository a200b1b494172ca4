"""A model's folder: manifest.json and the graph of each stage, checked and opened when needed."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vr_trt.engines.cache import Engine
from vr_trt.engines.gate import refusal
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.errors import ModelError, UsageError
from vr_trt.kernels.detail import PUBLISHED_DETAIL, wavelet_name
from vr_trt.runtime import onnxruntime_session
from vr_trt.runtime.onnxruntime_session import OrtOptions
from vr_trt.runtime.session import Session

if TYPE_CHECKING:
    from vr_trt.runtime.card_turns import CardTurns
    from vr_trt.runtime.tensorrt_session import Gpu
    from vr_trt.runtime.triton_session import TritonDevice

STAGES = ("encode_image", "generator", "decode_image")
# The VAE over time: whole, or cut by resolution (see runtime/vae_stream.py).
CALLS = ("start", "step")
HALVES = tuple(f"{half}_{call}" for half in ("fine", "coarse") for call in CALLS)
EMBEDDED = Path(__file__).parent.with_name("engines")  # graphs that ship in the package
DOWNLOADED = ("seedvr2-3b", "seedvr2-7b", "seedvr2-7b-sharp")
LATENT_CHANNELS = 16
KNOWN_MODELS = ("nano", *DOWNLOADED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """manifest.json of a model's folder."""

    model: str
    version: str
    stages: Mapping[str, str]  # stage -> file
    text_tokens: int
    head_width: int
    rope: str
    latent_channels: int
    sha256: Mapping[str, str]  # file -> hash, every file of the folder
    precision: str = "fp32"
    detail: Sequence[float] = PUBLISHED_DETAIL  # see `kernels.detail`
    shape: Mapping[str, int] | None = None  # the one that the graphs are for; None: any
    fp8: Mapping[str, Any] | None = None  # calibration and gate of a generator in fp8
    memory: Mapping[str, float] = field(default_factory=dict)  # see runtime/memory.py

    def __post_init__(self) -> None:
        video = [f"{verb}_{part}" for verb in ("encode", "decode") for part in self._parts(verb)]
        if missing := [stage for stage in (*STAGES, *video) if stage not in self.stages]:
            raise ValueError(f"no stage {', '.join(missing)}")
        if unlisted := sorted(set(self.stages.values()) - set(self.sha256)):
            raise ValueError(f"no hash of {', '.join(unlisted)}")
        if outside := [name for name in self.sha256 if Path(name).name != name]:
            raise ValueError(f"{', '.join(outside)} is outside of the folder")
        wavelet_name(self.detail)  # ValueError for what is none

    def _parts(self, verb: str) -> tuple[str, ...]:
        """The stages of a coder over time."""
        return HALVES if any(f"{verb}_{part}" in self.stages for part in HALVES) else CALLS


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; ModelError where it is missing or not one."""
    path = folder / "manifest.json"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"no model in {folder}: manifest.json is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}; get the model again") from None
    known = {item.name for item in fields(Manifest)}
    try:
        return Manifest(**{key: value for key, value in content.items() if key in known})
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a model's manifest: {error}") from None


def verify_files(folder: Path, sha256: Mapping[str, str]) -> None:
    """ModelError names the first file of `folder` that is missing or is not what its hash says."""
    for name, expected in sha256.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ModelError(f"{path} is missing: get the model again") from None
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from None
        if found != expected:
            raise ModelError(
                f"{path} is damaged or foreign (sha256 {found[:12]}…, expected {expected[:12]}…): "
                "get the model again"
            )


def find_model(name: str) -> Path:
    """The folder of the model called `name`, or `name` itself where it is a folder.

    UsageError for a name that is not known; ModelError for one that must be fetched first.
    """
    if name in DOWNLOADED:
        raise ModelError(
            f"no engines of {name} here: `vr-trt weights pull {name}`, then `vr-trt export --model "
            f"{name}` and `vr-trt engines build --model {name}`; or run with --model nano"
        )
    if name == "nano":
        return EMBEDDED / "nano"
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    raise UsageError(
        f"unknown model {name!r}: choose one of {', '.join(KNOWN_MODELS)}, or a model's folder"
    )


class Model:
    """Stage sessions of one folder, opened when first asked for."""

    def __init__(
        self, folder: Path, options: OrtOptions | None = None, *, judging: bool = False
    ) -> None:
        """Reads the manifest and checks every file's hash; ModelError where one is wrong.

        Graphs in fp8 that did not pass their gate are refused, but for `judging` them.
        """
        self.folder = folder
        self.manifest = read_manifest(folder)
        if self.manifest.precision == "bf16":
            raise ModelError(f"{folder} is in bf16, which ONNX Runtime's CPU cannot run: use fp32")
        if self.manifest.precision == "fp8" and not judging:
            reason = refusal((self.manifest.fp8 or {}).get("gate"), self.manifest.model)
            if reason:
                raise ModelError(reason)
        verify_files(folder, self.manifest.sha256)
        plans = {stage: folder / name for stage, name in self.manifest.stages.items()}
        self._open(plans, options)

    @classmethod
    def of_engines(
        cls,
        engines: Mapping[str, Engine],
        options: OrtOptions | None = None,
        own: "Model | None" = None,
        turns: Collection[str] = (),
    ) -> Self:
        """A model whose stages, by name, are engines of the cache, which were checked.

        A network without an engine runs on the graphs of `own`. `turns`: parts on triton that take
        turns on the card (see `engines.rota`).
        """
        first = next(iter(engines.values()))
        canvas = first.about.canvas
        plans = {stage: engine.plan for stage, engine in engines.items()}
        for network in NETWORK_STAGES.values():
            if own and not plans.keys() & {*network}:
                graphs = own.manifest.stages
                plans |= {s: own.folder / graphs[s] for s in network if s in graphs}
        model = cls.__new__(cls)
        model.folder = first.folder.parent
        model.manifest = Manifest(
            model=first.spec.model,
            version=first.about.made_by,
            stages={stage: stage for stage in plans},
            # For window tables, which engines of one size have inside.
            text_tokens=own.manifest.text_tokens if own else 0,
            head_width=own.manifest.head_width if own else 0,
            rope=own.manifest.rope if own else "",
            latent_channels=own.manifest.latent_channels if own else LATENT_CHANNELS,
            sha256={s: engines[s].spec.onnx if s in engines else "" for s in plans},
            precision=first.spec.precision,
            detail=first.about.detail,
            shape={"width": canvas.width, "height": canvas.height, "latents": canvas.latents},
        )
        model._open(plans, options)
        model._backends = {stage: engine.spec.backend for stage, engine in engines.items()}
        model._turns = turns
        return model

    def _open(self, plans: Mapping[str, Path], options: OrtOptions | None) -> None:
        self._plans = plans
        self._backends: Mapping[str, str] = {}  # of stages that do not run on ONNX Runtime
        self._options = options or OrtOptions()
        self._sessions: dict[str, Session] = {}
        self._gpus: dict[str, Gpu] = {}  # by backend
        self._triton: TritonDevice | None = None
        self._turns: Collection[str] = ()
        self.cancelled = False

    def session(self, stage: str) -> Session:
        """The session of `stage`, opened now if it is not."""
        if stage not in self._sessions:
            self._sessions[stage] = self._load(stage)
            if self.cancelled:
                self._sessions[stage].cancel()
        return self._sessions[stage]

    def _load(self, stage: str) -> Session:
        backend = self._backends.get(stage, "onnxruntime")
        if backend == "onnxruntime":
            return onnxruntime_session.load(self._plans[stage], self._options)
        if backend == "triton":
            return self._load_triton(stage)
        from vr_trt.runtime.tensorrt_session import TensorRtSession, open_gpu

        if backend not in self._gpus:
            self._gpus[backend] = open_gpu(backend)
        return TensorRtSession(self._plans[stage], self._gpus[backend])

    @property
    def backend(self) -> str:
        """The one that all stages of a video run on; "" where they run on several."""
        video = [s for s in self.manifest.stages if not s.endswith("_image")]
        found = {self._backends.get(stage, "onnxruntime") for stage in video}
        return found.pop() if len(found) == 1 else ""

    @property
    def gpu(self) -> "Gpu | None":
        """Where all stages of a video run on one GPU by TensorRT or TensorRT-RTX: that one."""
        if self.backend not in ("tensorrt", "tensorrt-rtx"):
            return None
        self.session("generator")
        return self._gpus[self.backend]

    def _load_triton(self, stage: str) -> Session:
        from vr_trt.runtime import triton_session

        if stage.endswith("_start"):  # opening a step runs it, on the states that both share
            self.session(f"{stage.removesuffix('_start')}_step")
        return triton_session.load(self._plans[stage], stage, self._triton_device())

    def _triton_device(self) -> "TritonDevice":
        if self._triton is None:
            from vr_trt.runtime import triton_session

            plans = [self._plans[s] for s, name in self._backends.items() if name == "triton"]
            self._triton = triton_session.open_device(plans, parts=self._turns)
        return self._triton

    @property
    def turns(self) -> "CardTurns | None":
        """What copies where parts of a model on triton take turns; its device is opened now."""
        return self._triton_device().turns

    def drop(self, stage: str) -> None:
        """Give back the memory of a stage that is not needed any more."""
        self._sessions.pop(stage, None)

    def close(self) -> None:
        """Drop every session."""
        self._sessions.clear()
        self._gpus.clear()
        if self._triton is not None and self._triton.turns is not None:
            self._triton.turns.close()
        self._triton = None

    def cancel(self) -> None:
        """Stop what runs, from any thread; the model is of no use afterwards."""
        self.cancelled = True
        for session in list(self._sessions.values()):
            session.cancel()
