"""`vr-trt export`: a model's stages as ONNX graphs."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vr_trt.cli_options import GeneratorFile, Size, VaeFile

if TYPE_CHECKING:
    from vr_trt.export.stages import StageShape


class Precision(StrEnum):
    """Of the graphs' weights and arithmetic."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"


class Network(StrEnum):
    """One of a model's networks."""

    ENCODER = "encoder"
    GENERATOR = "generator"
    DECODER = "decoder"


def export(
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")],
    model: Annotated[str, typer.Option("--model", help="The model to export.")] = "nano",
    profile: Annotated[
        str,
        typer.Option("--profile", help="Size and window, or `any` for graphs that take any size."),
    ] = "720p",
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of the networks.", show_default="the profile's; fp32 for `any`"),
    ] = None,
    size: Size = None,
    network: Annotated[
        list[Network] | None, typer.Option(help="Only this network; may be repeated.")
    ] = None,
    cut: Annotated[
        bool | None,
        typer.Option(
            "--cut/--whole",
            help="Run the VAE's high resolutions one frame at a time, or the VAE whole.",
            show_default="as the profile says",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The table for fp8, from `vr-trt calibrate`.",
            show_default="beside the weights",
        ),
    ] = None,
    vae_stream: Annotated[
        float | None,
        typer.Option(help="Scale of the VAE's values between norms, so that fp16 holds them."),
    ] = None,
    generator_file: GeneratorFile = None,
    vae_file: VaeFile = None,
) -> None:
    """Write a model's stages as ONNX graphs, folded for one timestep and prompt."""
    from vr_trt.engines.profiles import find_profile
    from vr_trt.export.export_model import NETWORKS, ExportPlan, export_model
    from vr_trt.export.models import find_model_files
    from vr_trt.export.vae import STREAM

    any_size = profile == "any"
    row = None if any_size else find_profile(profile)
    chosen = precision.value if precision else row.precision if row else "fp32"
    plan = ExportPlan(
        model=find_model_files(model, generator_file, vae_file),
        precision=chosen,
        shape=_shape(size, row.short_side, row.window_latents, row.latents_per_step)
        if row
        else None,
        profile=row.name if row else None,
        cut=cut if cut is not None else row is not None and row.cut,
        calibration=calibration,
        networks=[each.value for each in network] if network else NETWORKS,
        stream=STREAM if vae_stream is None else vae_stream,
    )
    typer.echo(export_model(plan, out, lambda line: typer.echo(line, err=True)))


def _shape(size: str | None, short_side: int, latents: int, step: int) -> "StageShape":
    """The padded canvas of `size`, or of a 16:9 picture."""
    from vr_trt.errors import UsageError
    from vr_trt.export.stages import StageShape
    from vr_trt.runtime.canvas import canvas

    wanted = re.fullmatch(r"(\d+)x(\d+)", size or "16x9")
    if wanted is None:
        raise UsageError(f"{size} is not a size: write it as 1280x720")
    width, height = int(wanted[1]), int(wanted[2])
    padded = canvas(width, height, min(width, height) if size else short_side)
    return StageShape(height=padded.padded_h, width=padded.padded_w, latents=latents, step=step)
