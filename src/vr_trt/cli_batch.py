"""`vr-trt batch`: many files, with a report."""

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vr_trt.errors import UsageError

if TYPE_CHECKING:
    from vr_trt.runtime.batch import Batch, Entry


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(help="A folder, a list of paths, or .jsonl: one object a file."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder for outputs.  [default: beside inputs]"),
    ] = None,
    profile: Annotated[str, typer.Option(help="Size; see `vr-trt profiles`.")] = "720p",
    model: Annotated[str, typer.Option(help="The network, or a folder that holds one.")] = "nano",
    backend: Annotated[str, typer.Option(help="As of `run`.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="As of `run`.")] = None,
    seed: Annotated[int, typer.Option(help="Of the generator's noise.")] = 0,
    color: Annotated[str, typer.Option(help="wavelet, lab, adain or none.")] = "wavelet",
    codec: Annotated[str | None, typer.Option(help="As of `run`.  [default: h264]")] = None,
    crf: Annotated[float | None, typer.Option(help="Quality of the encoder.")] = None,
    preset: Annotated[str | None, typer.Option(help="Speed of the encoder.")] = None,
    rate: Annotated[str, typer.Option("--rate", "-r", help="Of folders of images.")] = "",
    deinterlace: Annotated[str | None, typer.Option(help="As of `run`.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that are there.")] = False,
    workers: Annotated[int, typer.Option(help="Files at a time.", min=0)] = 0,
    gpus: Annotated[str, typer.Option(metavar="0,1", help="A worker on each of these.")] = "",
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Workers on Ray: local, auto, …")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of each worker; 0 shares the cores.", min=0)] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: MANIFEST.report.json]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Restore many files, go on after failures, and skip what is done when run again."""
    from vr_trt.runtime.batch import Batch
    from vr_trt.runtime.manifest import make_asked, read_manifest_jobs
    from vr_trt.runtime.run_options import RunOptions, parse_gpus
    from vr_trt.runtime.worker_group import open_group

    asked = make_asked(
        model=model,
        profile=profile,
        backend=backend,
        precision=precision,
        seed=seed,
        color=color,
        codec=codec,
        crf=crf,
        preset=preset,
        rate=rate,
        deinterlace=deinterlace,
    )
    if not manifest.exists():
        raise UsageError(f"{manifest} is not there: name a folder or a manifest")
    jobs = read_manifest_jobs(manifest, asked, output)
    options = RunOptions(workers=workers, gpus=parse_gpus(gpus), cluster=cluster)
    path = report or _report_of(manifest)
    work = Batch(jobs, path, overwrite=overwrite)
    with open_group(options, threads) as group:
        work.run(group, _show_json if json else _show_line)
    if json:
        counts = {name: work.count(name) for name in ("done", "failed", "skipped")}
        values = {"event": "batch", **counts, "seconds": work.seconds, "report": str(path)}
        print(jsonlib.dumps(values), flush=True)
    else:
        _show_table(work)
        print(f"report: {path}")
    if work.exit_code:
        raise typer.Exit(work.exit_code)


def _report_of(manifest: Path) -> Path:
    """Beside a list; in a folder."""
    if manifest.is_dir():
        return manifest / "vr-trt.report.json"
    return manifest.with_name(f"{manifest.name}.report.json")


def _show_json(entry: "Entry") -> None:
    print(jsonlib.dumps({"event": "file", **asdict(entry)}), flush=True)


def _show_line(entry: "Entry") -> None:
    print(f"{entry.status}: {entry.input}  {entry.reason}".rstrip(), file=sys.stderr)


def _show_table(work: "Batch") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for name in ("file", "status", "frames", "seconds", "fps", "reason"):
        table.add_column(name)
    for entry in work.entries:
        table.add_row(
            Text(entry.input),
            entry.status,
            str(entry.frames or ""),
            f"{entry.seconds:.1f}" if entry.seconds else "",
            f"{entry.fps:.2f}" if entry.fps else "",
            Text(entry.reason),
        )
    Console().print(table)
    counts = ", ".join(f"{work.count(name)} {name}" for name in ("done", "failed", "skipped"))
    print(f"{counts} in {work.seconds:.1f} s")
