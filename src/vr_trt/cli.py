"""The command line: verbs, and every error as one line with its exit code.

What a verb needs is imported inside it, so that `vr-trt --help` answers at once.
"""

import _imp
import os
import signal
import sys
from collections.abc import Sequence
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
    cli_run,
    cli_weights,
)
from vr_trt.cli_options import Json
from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError, UsageError, VrTrtError

app = typer.Typer(
    name="vr-trt",
    help="Restore degraded video and images with SeedVR2's one-step network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def profiles(
    cards: Annotated[
        bool, typer.Option("--cards", help="The largest profile that fits each kind of GPU.")
    ] = False,
    json: Json = False,
) -> None:
    """List the profiles: sizes and windows, or which of them fits which GPU."""
    from vr_trt.cli_report import show_cards, show_profiles

    if cards:
        show_cards(json)
    else:
        show_profiles(json)


def doctor(json: Json = False) -> None:
    """Say what is installed, what can run, what is missing and how to get it."""
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


for verb in (
    cli_run.run,
    cli_batch.batch,
    cli_run.plan,
    cli_cuts.cuts,
    cli_compare.compare,
    profiles,
    doctor,
    cli_export.export,
    cli_calibrate.calibrate,
):
    app.command()(verb)
app.add_typer(cli_engines.app, name="engines")
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_bench.app, name="bench")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    # A polite `kill`, or a terminal that is closed, ends a run as Ctrl-C does: nothing half written
    # stays behind. What was told to go on (nohup) goes on.
    endings = [
        ending
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(ending) is not signal.SIG_IGN
    ]
    for ending in endings:
        signal.signal(ending, _end)
    try:
        code = exit_code(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before or after typer, which answers it otherwise
        code = _fail(InterruptedRun("stopped by the user"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for ending in endings:  # nothing is left to be tidied up, and Python is about to go
            signal.signal(ending, signal.SIG_DFL)
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
