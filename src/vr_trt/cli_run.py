"""`vr-trt run` and `vr-trt plan`: one film or image restored, or what that would take."""

from pathlib import Path
from typing import Annotated

import typer

from vr_trt import cli_options as options
from vr_trt.cli_options import Color
from vr_trt.errors import UsageError

_FILM, _REPORTS = "Parts, shots, stopping and resuming", "Reports"

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="A video, an image, a folder of images, or - for standard input."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write, or - for standard output.",
        show_default="NAME.restored beside the input",
    ),
]
Range = Annotated[
    str,
    typer.Option(
        "--range",
        metavar="A-B",
        help="Frames (0-99) or times (1:30-2:00); B itself is left out.",
        show_default="all",
        rich_help_panel=_FILM,
    ),
]
Cuts = Annotated[
    str,
    typer.Option(
        help="Where shots begin: auto, none, or a list made by `vr-trt cuts`.",
        rich_help_panel=_FILM,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a stopped run.", rich_help_panel=_FILM),
]
Until = Annotated[
    str,
    typer.Option(
        metavar="HH:MM",
        help="Stop at this time of day; --resume continues.",
        rich_help_panel=_FILM,
    ),
]
Bitrate = Annotated[
    int | None,
    typer.Option(help="Bits per second, in place of --crf.", rich_help_panel=options.CODECS),
]
Bits = Annotated[
    int | None,
    typer.Option(
        help="Bits of a sample, 8 or 10.",
        show_default="as the input",
        rich_help_panel=options.CODECS,
    ),
]
Encoder = Annotated[
    str, typer.Option(help="auto, nvenc or software.", rich_help_panel=options.CODECS)
]
Decoder = Annotated[
    str, typer.Option(help="auto, nvdec or software.", rich_help_panel=options.CODECS)
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write what the run did, as JSON.", rich_help_panel=_REPORTS),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write when each stage ran, for Perfetto.",
        rich_help_panel=_REPORTS,
    ),
]


def run(
    input: Input,
    output: Output = None,
    profile: options.ProfileName = "720p",
    model: options.ModelName = "nano",
    seed: options.Seed = 0,
    color: options.ColorWay = Color.WAVELET,
    rate: options.Rate = "",
    deinterlace: options.Deinterlace = None,
    overwrite: options.Overwrite = False,
    range_: Range = "",
    cuts: Cuts = "auto",
    resume: Resume = False,
    until: Until = "",
    codec: options.CodecName = None,
    crf: options.Crf = None,
    preset: options.Preset = None,
    bitrate: Bitrate = None,
    bits: Bits = None,
    encoder: Encoder = "auto",
    decoder: Decoder = "auto",
    backend: options.Backend = "auto",
    precision: options.Precision = None,
    card_memory: options.CardMemory = None,
    workers: options.Workers = 0,
    gpus: options.Gpus = "",
    cluster: options.Cluster = None,
    threads: options.Threads = 0,
    report: Report = None,
    trace: Trace = None,
    json: options.Json = False,
) -> None:
    """Restore a video or an image."""
    from vr_trt.cli_report import run_display
    from vr_trt.runtime.restorer import Restorer
    from vr_trt.runtime.run_options import RunOptions, parse_gpus
    from vr_trt.runtime.video_codecs import Encoding

    if json and output == Path("-"):
        raise UsageError("--json and the video cannot share standard output: write a file")
    encoding = Encoding(
        codec=codec, crf=crf, preset=preset, bitrate=bitrate, bits=bits, encoder=encoder
    )
    run_options = RunOptions(
        overwrite=overwrite,
        resume=resume,
        range=range_,
        until=until,
        cuts=cuts,
        rate=rate,
        deinterlace=deinterlace,
        decoder=decoder,
        trace=trace,
        report=report,
        workers=workers,
        gpus=parse_gpus(gpus),
        cluster=cluster,
    )
    with (
        run_display(json) as display,
        Restorer(
            model=model,
            profile=profile,
            backend=backend,
            precision=precision,
            seed=seed,
            color=color.value,
            threads=threads,
            card_memory=card_memory,
        ) as restorer,
    ):
        done = restorer.restore(
            input, output, encoding=encoding, options=run_options, on_progress=display.progress
        )
        display.finish(done)


def plan(
    input: Input,
    output: Output = None,
    profile: options.ProfileName = "720p",
    model: options.ModelName = "nano",
    rate: options.Rate = "",
    backend: options.Backend = "auto",
    precision: options.Precision = None,
    card_memory: options.CardMemory = None,
    json: options.Json = False,
) -> None:
    """Say what a run would do and what memory it needs, without restoring anything."""
    from vr_trt.cli_report import show_plan
    from vr_trt.runtime.restorer import Restorer

    with Restorer(
        model=model, profile=profile, backend=backend, precision=precision, card_memory=card_memory
    ) as restorer:
        show_plan(restorer.plan(input, output, rate), json)
