"""`vr-trt bench`: what this machine can do, measured."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@app.callback()
def measure() -> None:
    """Measure this machine."""


@app.command()
def kernels(
    module: Annotated[
        list[str] | None, typer.Argument(help="Only these, as window_attention; all if none.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of kernels.json and its log.")] = Path(
        "out/bench"
    ),
    seconds: Annotated[float, typer.Option(help="For all of it.", min=1)] = 400,
    small: Annotated[
        bool, typer.Option("--small", help="Try the harness on the CPU; its times mean nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Our GPU kernels: right first, then how fast beside the chip's limits and beside others."""
    from vr_trt.bench.gpu import why_no_gpu
    from vr_trt.errors import ModelError, UsageError

    why = why_no_gpu(small)
    if why is not None:
        raise ModelError(why)
    from json import dumps

    from vr_trt.bench.case import MODULES
    from vr_trt.bench.kernel_report import report
    from vr_trt.bench.kernels import Request, run

    if unknown := set(module or ()) - set(MODULES):
        raise UsageError(f"there is no kernel {min(unknown)}: choose of {', '.join(MODULES)}")
    document = run(Request(out=out, seconds=seconds, small=small, modules=module or MODULES))
    print(dumps(document) if json else report(document))
    if not document["right"]:
        raise typer.Exit(1)


@app.command()
def quality(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the result there, as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """What folding, precisions, the cut VAE, windows and joins cost, on nano. Minutes."""
    from json import dumps

    from rich.console import Console

    from vr_trt.bench.quality import measure, table, write

    errors = Console(stderr=True)
    document = measure(lambda line: errors.print(f"… {line}"))
    if out is not None:
        write(document, out)
    if json:
        print(dumps(document))
    else:
        Console().print(table(document))
    if not document["passed"]:
        raise typer.Exit(1)
