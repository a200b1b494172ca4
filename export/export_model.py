"""Export a model's stages to a folder: graphs, shared weights, and a manifest.

The manifest is written last: a folder without one is not a model. Networks are folded and traced
one after the other, so that the peak is the largest one's memory.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
import torch

import vr_trt
from vr_trt.errors import UsageError
from vr_trt.export.calibration_table import Calibration, find_calibration
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.models import ModelFiles
from vr_trt.export.onnx_cpu import attend_blockwise, convolve_single_frames
from vr_trt.export.onnx_graph import Trace, describe, trace
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.quantise import quantise
from vr_trt.export.stages import StageShape, coder_stages, generator_stages
from vr_trt.export.vae import IMAGE, STREAM, VIDEO
from vr_trt.export.weights_hashes import hash_file

Precision = Literal["fp32", "fp16", "bf16", "fp8"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,  # what stays wide in the generator, and all of the VAE
}
NETWORKS = ("encoder", "generator", "decoder")
MANIFEST = "manifest.json"
OURS = (".onnx", ".bin", ".json", ".partial")  # what an export leaves, even one that broke off


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportPlan:
    """What to export: for one shape, or (`shape` None) for every size."""

    model: ModelFiles
    precision: Precision = "fp32"
    shape: StageShape | None = None
    profile: str | None = None
    networks: Collection[str] = NETWORKS
    cut: bool = False  # the VAE's high resolutions as stages of their own, one frame a call
    calibration: Path | None = None  # for fp8, if not the one beside the weights
    embed: bool = False  # for ONNX Runtime on a CPU: its attention, weights stored in fp16
    stream: float = STREAM  # of the VAE's `Form`, for weights that fp16 would not hold

    def __post_init__(self) -> None:
        if not 0 < self.stream < float("inf"):
            raise UsageError(f"the VAE cannot be scaled by {self.stream}: give a positive number")
        if self.precision not in DTYPES:
            raise UsageError(
                f"unknown precision {self.precision!r}: choose one of {', '.join(DTYPES)}"
            )
        if unknown := set(self.networks) - set(NETWORKS):
            raise UsageError(
                f"unknown networks {', '.join(sorted(unknown))}: choose of {', '.join(NETWORKS)}"
            )

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def precision_of(self, network: str) -> str:
        """Of one network's graphs: only the generator is ever in fp8."""
        return "fp16" if self.precision == "fp8" and network != "generator" else self.precision


def export_model(
    plan: ExportPlan, folder: Path, said: Callable[[str], None] = lambda line: None
) -> Path:
    """Write `plan`'s stages into `folder` and give the manifest's path; `said` hears of progress.

    UsageError if the folder cannot be written or holds other files, ModelError for wrong weights.
    """
    hashes, text_tokens = plan.model.sha256(), len(plan.model.load_text())
    job = _Job(plan, folder, hashes, _calibration(plan, hashes))
    _claim(folder)
    try:
        stages = _write_stages(job, said)
        return _write_manifest(job, stages, text_tokens)
    except OSError as error:
        raise _unwritable(folder, error) from None


@dataclass(frozen=True, slots=True)
class _Job:
    """An export under way."""

    plan: ExportPlan
    folder: Path
    hashes: dict[str, str]  # of the weights
    calibration: Calibration | None


def _calibration(plan: ExportPlan, hashes: dict[str, str]) -> Calibration | None:
    if plan.precision != "fp8" or "generator" not in plan.networks:
        return None
    file = plan.model.generator_file
    return find_calibration(file, hashes[file.name], plan.calibration)


def _write_stages(job: _Job, said: Callable[[str], None]) -> dict[str, str]:
    """Write every graph and its weights; each stage's file."""
    plan, folder = job.plan, job.folder
    stages: dict[str, str] = {}
    for network in NETWORKS:
        if network not in plan.networks:
            continue
        with SharedWeights(folder / f"{network}.bin", half=plan.embed) as weights:
            for stage in _stages(plan, network):
                said(f"{stage.name}: tracing")
                model = trace(stage)
                if plan.embed:
                    attend_blockwise(model)
                    convolve_single_frames(model)
                if job.calibration and network == "generator":
                    quantise(model, job.calibration.table)
                describe(model, _metadata(job, network))
                path = folder / f"{stage.name}.onnx"
                weights.save(model, path)
                del model
                onnx.checker.check_model(path, full_check=False)
                stages[stage.name] = path.name
                said(f"{stage.name}: {path.name}, {weights.size / 1e6:.1f} MB in {network}.bin")
    return stages


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {folder}: {error.strerror}; give another --out")


def _claim(folder: Path) -> None:
    """Make the folder, and make an earlier export in it invalid before it is overwritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p for p in folder.iterdir() if p.suffix not in OURS]
        if foreign:
            raise UsageError(f"{folder} holds {foreign[0].name}: give an empty folder with --out")
        (folder / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _stages(plan: ExportPlan, network: str) -> Iterator[Trace]:
    config, dtype = plan.model, plan.dtype
    if network == "generator":
        folded = fold_generator(
            config.generator, config.load_generator(), config.load_text(), dtype=dtype
        )
        yield from generator_stages(folded, plan.shape)
        return
    weights = config.load_vae()
    fold = fold_encoder if network == "encoder" else fold_decoder
    yield from coder_stages(
        lambda: fold(config.vae, weights, replace(VIDEO, stream=plan.stream), dtype),
        lambda: fold(config.vae, weights, replace(IMAGE, stream=plan.stream), dtype),
        plan.shape,
        cut=plan.cut,
    )


def _metadata(job: _Job, network: str) -> dict[str, str]:
    plan, shape = job.plan, job.plan.shape
    sizes = f"{shape.width}x{shape.height}" if shape else "any"
    return {
        "model": plan.model.name,
        "version": vr_trt.__version__,
        "precision": plan.precision_of(network),
        "profile": plan.profile or "any",
        "pixels": sizes,
        "window_latents": str(shape.latents) if shape else "any",
        "step_latents": str(shape.step) if shape else "1",
        **{f"sha256:{name}": digest for name, digest in job.hashes.items()},
    }


def _write_manifest(job: _Job, stages: dict[str, str], tokens: int) -> Path:
    plan, folder, generator = job.plan, job.folder, job.plan.model.generator
    files = [*stages.values(), *(f"{network}.bin" for network in plan.networks)]
    manifest = {
        "model": plan.model.name,
        "version": vr_trt.__version__,
        "precision": plan.precision,
        "profile": plan.profile,
        "shape": None
        if plan.shape is None
        else {
            "width": plan.shape.width,
            "height": plan.shape.height,
            "latents": plan.shape.latents,
            "step": plan.shape.step,
        },
        "stages": stages,
        "text_tokens": tokens,
        "head_width": generator.head_width,
        "rope": generator.rope,
        "latent_channels": generator.latent_channels,
        "detail": plan.model.detail,
        "weights": job.hashes,
        "sha256": {name: hash_file(folder / name) for name in sorted(files)},
    }
    if job.calibration:
        manifest["fp8"] = job.calibration.as_json()
    path = folder / MANIFEST
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
