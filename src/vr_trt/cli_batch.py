"""`vr-trt batch`: many files, with a report."""

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vr_trt import cli_options as options
from vr_trt.cli_options import Color
from vr_trt.errors import UsageError

if TYPE_CHECKING:
    from vr_trt.runtime.batch import Batch, Entry


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(
            help="A folder, a text file with a path per line, or .jsonl with an object per line."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder to write into.", show_default="beside each input"
        ),
    ] = None,
    profile: options.ProfileName = "720p",
    model: options.ModelName = "nano",
    seed: options.Seed = 0,
    color: options.ColorWay = Color.WAVELET,
    rate: options.Rate = "",
    deinterlace: options.Deinterlace = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that this batch did not make.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the report is kept, and read when the batch is run again.",
            show_default="MANIFEST.report.json",
        ),
    ] = None,
    codec: options.CodecName = None,
    crf: options.Crf = None,
    preset: options.Preset = None,
    backend: options.Backend = "auto",
    precision: options.Precision = None,
    card_memory: options.CardMemory = None,
    workers: options.Workers = 0,
    gpus: options.Gpus = "",
    cluster: options.Cluster = None,
    threads: options.Threads = 0,
    json: options.Json = False,
) -> None:
    """Restore many files; failures do not stop it, and a second run skips what is done."""
    from vr_trt.runtime.batch import Batch
    from vr_trt.runtime.manifest import make_asked, read_manifest_jobs
    from vr_trt.runtime.run_options import RunOptions, parse_gpus
    from vr_trt.runtime.worker_group import open_group

    asked = make_asked(
        model=model,
        profile=profile,
        backend=backend,
        precision=precision,
        card_memory=card_memory,
        seed=seed,
        color=color.value,
        codec=codec,
        crf=crf,
        preset=preset,
        rate=rate,
        deinterlace=deinterlace,
    )
    if not manifest.exists():
        raise UsageError(f"{manifest} is not there: name a folder or a manifest")
    jobs = read_manifest_jobs(manifest, asked, output)
    run_options = RunOptions(workers=workers, gpus=parse_gpus(gpus), cluster=cluster)
    path = report or _report_of(manifest)
    work = Batch(jobs, path, overwrite=overwrite)
    with open_group(run_options, threads) as group:
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
