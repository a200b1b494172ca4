"""`vr-trt calibrate`: what fp8 needs to know of a model, and whether fp8 is good enough for it."""

from pathlib import Path
from typing import Annotated

import typer

from vr_trt.cli_options import GeneratorFile, VaeFile


def calibrate(
    clips: Annotated[
        list[Path],
        typer.Argument(metavar="CLIP", help="Footage of the kind that will be restored."),
    ],
    model: Annotated[str, typer.Option(help="The model to calibrate.")] = "nano",
    profile: Annotated[str, typer.Option(help="Size and window to calibrate at.")] = "360p",
    windows: Annotated[int, typer.Option(help="Windows of each clip, at most.", min=1)] = 4,
    method: Annotated[
        str, typer.Option(help="How scales are chosen: amax, percentile or mse.")
    ] = "amax",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The table to write.", show_default="beside the weights"),
    ] = None,
    generator_file: GeneratorFile = None,
    vae_file: VaeFile = None,
) -> None:
    """Calibrate a model for fp8, and judge whether fp8 is good enough for it.

    Half of the clips' windows serve for each.
    """
    from vr_trt.bench.fp8_gate import CalibrationRequest, calibrate_and_judge
    from vr_trt.engines.gate import refusal
    from vr_trt.engines.profiles import find_profile
    from vr_trt.errors import ModelError
    from vr_trt.export.calibration_table import check_method
    from vr_trt.export.models import find_model_files

    request = CalibrationRequest(
        files=find_model_files(model, generator_file, vae_file),
        profile=find_profile(profile),
        clips=clips,
        windows=windows,
        method=check_method(method),
        table=out,
    )
    made = calibrate_and_judge(request, lambda line: typer.echo(line, err=True))
    typer.echo(made.gate, err=True)
    typer.echo(made.table)
    if reason := refusal(made.gate.as_json(), model):
        raise ModelError(reason)
