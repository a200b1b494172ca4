"""`vr-trt bench`: what this machine can do, measured."""

from pathlib import Path
from typing import Annotated

import typer

from vr_trt.cli_options import Backend, ModelName, Precision

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@app.callback()
def measure() -> None:
    """Measure this machine."""


@app.command()
def kernels(
    module: Annotated[
        list[str] | None,
        typer.Argument(help="Which ones, such as window_attention.", show_default="all"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for kernels.json and its log.")] = Path(
        "out/bench"
    ),
    seconds: Annotated[float, typer.Option(help="Time for all of them.", min=1)] = 400,
    small: Annotated[
        bool, typer.Option("--small", help="Try the harness on the CPU, where times mean nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Check the GPU kernels, then time them beside the chip's limits and beside others."""
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
def latency(
    profile: Annotated[
        list[str] | None,
        typer.Option(help="Size, see `vr-trt profiles`; may be repeated.", show_default="360p"),
    ] = None,
    model: ModelName = "nano",
    backend: Backend = "auto",
    precision: Precision = None,
    runs: Annotated[int, typer.Option(help="Fresh processes for each row, at least.", min=3)] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="torch|torch-compile|FOLDER",
            help="Time this as well: the plain networks in PyTorch, or a folder's adapter.py.",
        ),
    ] = None,
    clip: Annotated[
        list[str] | None,
        typer.Option(help="demo, silent, 10-bit or a file; may be repeated.", show_default="demo"),
    ] = None,
    frames: Annotated[int, typer.Option(help="Length of the clips that are made.", min=9)] = 37,
    seconds: Annotated[
        float, typer.Option(help="After that, begin no round beyond --runs.", min=1)
    ] = 600,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result, as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the stages and the roofline.")
    ] = None,
) -> None:
    """Time a whole run, cold and steady, by stage, beside others; only if its frames are right."""
    import sys
    from json import dumps

    from rich.console import Console

    from vr_trt.bench.latency import Request, run
    from vr_trt.bench.latency_report import show
    from vr_trt.bench.whole_file import write_json
    from vr_trt.errors import UsageError

    for target in filter(None, (out, plot)):
        if not target.parent.is_dir():  # known now rather than after minutes
            raise UsageError(f"{target.parent} is not a directory; make it first")
    request = Request(
        profiles=tuple(profile or ("360p",)),
        model=model,
        backend=backend,
        precision=precision,
        runs=runs,
        against=tuple(against or ()),
        clips=tuple(clip or ("demo",)),
        frames=frames,
        seconds=seconds,
    )
    document = run(request, lambda line: print(line, file=sys.stderr, flush=True))
    if out is not None:
        write_json(out, document)
    if json:
        print(dumps(document))
    else:
        show(document, Console(width=None if sys.stdout.isatty() else 160))
    if plot is not None:
        from vr_trt.bench.latency_plot import plot as draw

        draw(document, plot)


@app.command()
def quality(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result, as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Measure what folding, precisions, the cut VAE, windows and joins cost nano; takes minutes."""
    from json import dumps

    from rich.console import Console

    from vr_trt.bench.quality import measure, table
    from vr_trt.bench.whole_file import write_json

    errors = Console(stderr=True)
    document = measure(lambda line: errors.print(f"… {line}"))
    if out is not None:
        write_json(out, document)
    if json:
        print(dumps(document))
    else:
        Console().print(table(document))
    if not document["passed"]:
        raise typer.Exit(1)
