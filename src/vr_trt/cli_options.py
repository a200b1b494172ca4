"""Options that several verbs share: each is described once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Color(StrEnum):
    """How the restored picture takes over the source's colours."""

    WAVELET = "wavelet"
    LAB = "lab"
    ADAIN = "adain"
    NONE = "none"


CODECS = "Codecs"
_ENGINES, _WORKERS = "Engines", "Several workers"

ProfileName = Annotated[
    str, typer.Option("--profile", help="Size of the output; see `vr-trt profiles`.")
]
ModelName = Annotated[
    str,
    typer.Option("--model", help="nano, seedvr2-3b, seedvr2-7b, or the folder of an export."),
]
Seed = Annotated[int, typer.Option(help="Seed of the generator's noise.")]
ColorWay = Annotated[Color, typer.Option("--color", help="Colour correction.")]
Rate = Annotated[str, typer.Option("--rate", "-r", help="Frames per second of a folder of images.")]
Deinterlace = Annotated[
    str | None,
    typer.Option(
        help="field, frame, all-fields, all-frames, telecine or off.",
        show_default="refuse interlaced video",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the output if there is one; drop a stopped run."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON lines to standard output.")]

CodecName = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="h264, hevc, av1, prores, ffv1; y4m to standard output.",
        show_default="h264; hevc for HDR, av1 for WebM",
        rich_help_panel=CODECS,
    ),
]
Crf = Annotated[
    float | None,
    typer.Option(
        help="Quality on the codec's own scale; lower is better.",
        show_default="17 to 22, by codec",
        rich_help_panel=CODECS,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Speed of the encoder, as `slow`.", show_default="by codec", rich_help_panel=CODECS
    ),
]

Backend = Annotated[
    str,
    typer.Option(
        help="auto, tensorrt-rtx, tensorrt, triton or onnxruntime.", rich_help_panel=_ENGINES
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32, fp16, bf16 or fp8.",
        show_default="of the engines that are there",
        rich_help_panel=_ENGINES,
    ),
]
CardMemory = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        help="Plan as if the GPU had no more memory.",
        show_default="all of it",
        rich_help_panel=_ENGINES,
    ),
]

Workers = Annotated[
    int,
    typer.Option(
        help="Processes on this machine's CPU.",
        show_default="1",
        min=0,
        rich_help_panel=_WORKERS,
    ),
]
Gpus = Annotated[
    str,
    typer.Option(metavar="0,1", help="One worker on each of these GPUs.", rich_help_panel=_WORKERS),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Workers on a Ray cluster: local, auto or HOST:PORT.",
        rich_help_panel=_WORKERS,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        help="CPU threads of each worker; 0 shares all cores among them.",
        min=0,
        rich_help_panel=_WORKERS,
    ),
]

Size = Annotated[
    str | None,
    typer.Option(
        metavar="WIDTHxHEIGHT",
        help="Size of the pictures.",
        show_default="the profile's short side, at 16:9",
    ),
]
_WEIGHTS = typer.Option(
    exists=True, dir_okay=False, help="Other weights.", show_default="those that were pulled"
)
GeneratorFile = Annotated[Path | None, _WEIGHTS]
VaeFile = Annotated[Path | None, _WEIGHTS]
