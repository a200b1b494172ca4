"""The command line: verbs, and every error as one line with its exit code.

What a verb needs is imported inside it, so that `vr-trt --help` answers at once.
"""

import _imp
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from vr_trt import (
    __version__,
    cli_batch,
    cli_bench,
    cli_calibrate,
    cli_compare,
    cli_cuts,
    cli_engines,
    cli_export,
    cli_weights,
)
from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError, UsageError, VrTrtError

app = typer.Typer(
    name="vr-trt",
    help="Restore degraded video and images with SeedVR2's one-step network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_engines.app, name="engines")
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_bench.app, name="bench")
app.command()(cli_export.export)
app.command()(cli_compare.compare)
app.command()(cli_calibrate.calibrate)
app.command()(cli_cuts.cuts)
app.command()(cli_batch.batch)


class Color(StrEnum):
    """How the restored picture takes over the source's colours."""

    WAVELET = "wavelet"
    LAB = "lab"
    ADAIN = "adain"
    NONE = "none"


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
        help="Where to write it; - is standard output.  [default: NAME.restored, as the input or .mp4]",
    ),
]
ProfileName = Annotated[str, typer.Option("--profile", help="Size; see `vr-trt profiles`.")]
ModelName = Annotated[str, typer.Option("--model", help="The network, or a folder that holds one.")]
Backend = Annotated[str, typer.Option(help="auto, tensorrt-rtx, tensorrt, triton or onnxruntime.")]
Precision = Annotated[
    str | None, typer.Option(help="fp32, fp16, bf16 or fp8, if not what there is.")
]
CardMemory = Annotated[
    float | None,
    typer.Option(metavar="GB", help="Plan as if the card had no more.  [default: all of it]"),
]
Rate = Annotated[str, typer.Option("--rate", "-r", help="Frames a second of a folder of images.")]
Threads = Annotated[
    int, typer.Option(help="Of each worker, for the networks; 0 uses every core.", min=0)
]
Workers = Annotated[int, typer.Option(help="Processes that share the work on the CPU.", min=0)]
Gpus = Annotated[str, typer.Option(metavar="0,1", help="A worker on each of these cards.")]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Workers on Ray: local, auto, or a cluster's address."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")]


@app.command()
def run(
    input: Input,
    output: Output = None,
    profile: ProfileName = "720p",
    model: ModelName = "nano",
    backend: Backend = "auto",
    precision: Precision = None,
    card_memory: CardMemory = None,
    seed: Annotated[int, typer.Option(help="Of the generator's noise.")] = 0,
    color: Annotated[Color, typer.Option(help="Colour correction.")] = Color.WAVELET,
    codec: Annotated[
        str | None,
        typer.Option(
            help="h264, hevc, av1, prores, ffv1, or y4m to -o -.  [default: h264; hevc for HDR]"
        ),
    ] = None,
    crf: Annotated[
        float | None, typer.Option(help="Quality of the encoder, lower is better.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Speed of the encoder.")] = None,
    bitrate: Annotated[int | None, typer.Option(help="Bits a second, in place of --crf.")] = None,
    bits: Annotated[int | None, typer.Option(help="8 or 10.  [default: as the input]")] = None,
    encoder: Annotated[str, typer.Option(help="auto, nvenc or software.")] = "auto",
    decoder: Annotated[str, typer.Option(help="auto, nvdec or software.")] = "auto",
    rate: Rate = "",
    deinterlace: Annotated[
        str | None,
        typer.Option(
            help="frame, field, all-frames, all-fields, telecine or off.  [default: refuse]"
        ),
    ] = None,
    cuts: Annotated[
        str, typer.Option(help="Where shots begin: auto, none, or a list made by `vr-trt cuts`.")
    ] = "auto",
    range_: Annotated[
        str, typer.Option("--range", metavar="A-B", help="Frames (0-99) or times (1:30-2:00).")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="HH:MM", help="Stop at this time of day; --resume goes on.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace the output, or a stopped run, if there is one.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the run did there, as JSON.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every stage's calls, for Perfetto.")
    ] = None,
    threads: Threads = 0,
    workers: Workers = 0,
    gpus: Gpus = "",
    cluster: Cluster = None,
    json: Json = False,
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
    options = RunOptions(
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
            input, output, encoding=encoding, options=options, on_progress=display.progress
        )
        display.finish(done)


@app.command()
def plan(
    input: Input,
    output: Output = None,
    profile: ProfileName = "720p",
    model: ModelName = "nano",
    backend: Backend = "auto",
    precision: Precision = None,
    card_memory: CardMemory = None,
    rate: Rate = "",
    json: Json = False,
) -> None:
    """Say what a run would do: engines, sizes, windows and memory."""
    from vr_trt.cli_report import show_plan
    from vr_trt.runtime.restorer import Restorer

    with Restorer(
        model=model, profile=profile, backend=backend, precision=precision, card_memory=card_memory
    ) as restorer:
        show_plan(restorer.plan(input, output, rate), json)


@app.command()
def profiles(
    cards: Annotated[
        bool,
        typer.Option(
            "--cards", help="The largest that fits each card, rings between stages counted."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List the profiles, or what fits which card."""
    from vr_trt.cli_report import show_cards, show_profiles

    if cards:
        show_cards(json)
    else:
        show_profiles(json)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is installed, what can run here, what is missing and how to get it."""
    from vr_trt.cli_report import show_findings
    from vr_trt.runtime.doctor import examine

    findings = examine()
    show_findings(findings, json)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(3)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vr-trt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Restore degraded video and images with SeedVR2's one-step network."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    # A polite `kill`, or a terminal that is closed, ends a run as Ctrl-C does: nothing half written
    # stays behind. What was told to go on (nohup) goes on.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _end)
    try:
        code = exit_code(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before or after typer, which answers it otherwise
        code = _fail(InterruptedRun("stopped by the user"))
    sys.exit(code)


def _end(number: int, frame: FrameType | None) -> None:
    """What Ctrl-C does, but not in the moment in which Python's import lock would stay locked."""
    if _imp.lock_held():
        signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # again, in a moment
        return
    raise KeyboardInterrupt


def exit_code(arguments: Sequence[str]) -> int:
    """Run one command; its errors become one line on standard error and an exit code."""
    try:
        code = app(list(arguments), prog_name="vr-trt", standalone_mode=False)
    except VrTrtError as error:
        return _fail(error)
    except TyperException as error:
        return _fail(UsageError(f"{error.format_message().rstrip('.')}; see vr-trt --help"))
    except ModuleNotFoundError as error:
        name = (error.name or "a package").split(".")[0]
        return _fail(ModelError(f"{name} is not installed: vr-trt doctor says how to get it"))
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return _fail(InterruptedRun("stopped by the user"))  # while a library was loaded
    except MemoryError:
        return _fail(MemoryBudgetError("out of memory: choose a smaller profile or free memory"))
    except BrokenPipeError:
        # Whoever read standard output has gone; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(UsageError(f"{name}{error.strerror or error}: check the path and try again"))
    if code == InterruptedRun.exit_code:  # typer's answer to Ctrl-C
        return _fail(InterruptedRun("stopped by the user"))
    return code if isinstance(code, int) else 0


def _fail(error: VrTrtError) -> int:
    line = " ".join(str(error).split())
    print(f"vr-trt: {line}", file=sys.stderr)
    return error.exit_code
