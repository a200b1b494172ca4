"""What the command line shows: a progress line or JSON lines, and tables."""

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from vr_trt.engines.profiles import load_profiles
from vr_trt.errors import VrTrtError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.memory import MIB

if TYPE_CHECKING:  # `doctor` and `profiles` work where the libraries of a run are missing
    from vr_trt.runtime.doctor import Finding
    from vr_trt.runtime.pipeline import Progress
    from vr_trt.runtime.plan import Plan
    from vr_trt.runtime.restorer import Report

_EVENTS_PER_SECOND = 2


class Display(Protocol):
    """Shows a run while it goes on."""

    def progress(self, progress: "Progress") -> None:
        """How far it is."""

    def finish(self, report: "Report") -> None:
        """What it did."""


@contextmanager
def run_display(json: bool) -> Iterator[Display]:
    """The display for the terminal, for a log, or for a program."""
    if json:
        try:
            yield _JsonDisplay()
        except VrTrtError as error:
            message = " ".join(str(error).split())
            _print_json({"event": "error", "message": message, "exit_code": error.exit_code})
            raise
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[frames]} frames  {task.fields[fps]:.1f} fps  {task.fields[eta]}"),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _TerminalDisplay(bar)


class _TerminalDisplay:
    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("restoring", total=None, frames="0", fps=0.0, eta="")

    def progress(self, progress: "Progress") -> None:
        of = "" if progress.total is None else f"/{progress.total}"
        eta = "" if progress.eta is None else f"ETA {_clock(progress.eta)}"
        self._bar.update(
            self._task,
            completed=progress.frames,
            total=progress.total,
            frames=f"{progress.frames}{of}",
            fps=progress.fps,
            eta=eta,
        )

    def finish(self, report: "Report") -> None:
        self._bar.stop()
        for line in report.warnings:
            print(f"note: {line}", file=sys.stderr)
        print(
            f"{report.output}: {counted(report.frames, 'frame')}, {report.width}x{report.height}, "
            f"{report.timing.seconds:.1f} s, {report.fps:.2f} fps",
            file=sys.stderr if str(report.output) == "-" else sys.stdout,
        )


class _JsonDisplay:
    def __init__(self) -> None:
        self._next = 0.0

    def progress(self, progress: "Progress") -> None:
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + 1 / _EVENTS_PER_SECOND
        values = asdict(progress) | {"fps": progress.fps, "eta": progress.eta}
        _print_json({"event": "progress"} | values)

    def finish(self, report: "Report") -> None:
        from vr_trt.runtime.run_report import report_values

        _print_json({"event": "done"} | report_values(report))


def show_plan(plan: "Plan", json: bool) -> None:
    """The plan as a table, or as one JSON object."""
    source, pixel = plan.source, plan.pixel
    values: dict[str, Any] = {
        "input": str(source.path),
        "source": f"{source.width}x{source.height}, {source.pixel.bits} bits, {source.pixel.matrix}",
        "output": f"{plan.canvas.out_w}x{plan.canvas.out_h}, {pixel.bits} bits, {pixel.matrix}",
        "canvas": f"{plan.canvas.padded_w}x{plan.canvas.padded_h}",
        "profile": plan.profile.name,
        "engines": plan.serving.line,
        "codecs": list(plan.codecs),
        "frames": plan.frames,
        "latents": plan.latents,
        "generator_windows": plan.windows,
        "peak_mib": _mib(plan.host_bytes),
        "available_mib": _mib(plan.available_bytes),
        **_card(plan),
        "fits": plan.fits,
        "notes": [*plan.serving.remarks, *source.guesses],
    }
    if json:
        _print_json(values)
        return
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        text = "; ".join(value) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), Text("unknown" if value is None else text))
    Console().print(table)


def _card(plan: "Plan") -> dict[str, Any]:
    """The card's memory, where the run would be on one."""
    card = plan.serving.card
    if card is None:
        return {}
    values: dict[str, Any] = {
        "card_mib": _mib(card.needed),
        "card_usable_mib": _mib(card.usable),
    }
    if plan.rings:
        values["rings_mib"] = _mib(plan.rings.device)
        values["page_locked_mib"] = _mib(plan.rings.host + plan.serving.rota.mirrors)
    if plan.serving.rota.sizes:
        values["take_turns"] = list(plan.serving.rota.sizes)
        values["moved_mib_a_frame"] = _mib(plan.serving.moved)
    return values


def show_profiles(json: bool) -> None:
    """The profiles as a table, or one JSON line each."""
    rows = [asdict(profile) for profile in load_profiles().values()]
    _show_rows(rows, json)


def show_cards(json: bool) -> None:
    """What fits which card: a Markdown table, or one JSON line each."""
    from vr_trt.engines.card_fits import card_rows, card_table
    from vr_trt.runtime.card_rings import usual_rings

    models = ("seedvr2-3b", "seedvr2-7b")
    if json:
        for row in card_rows(models, usual_rings):
            _print_json(row)
        return
    print("\n".join(card_table(models, usual_rings)))


def show_findings(findings: Sequence["Finding"], json: bool) -> None:
    """What `doctor` found, as a table, or one JSON line each."""
    if json:
        for finding in findings:
            _print_json(asdict(finding))
        return
    table = Table(box=None, show_header=False)
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.needed else "-")
        remedy = f"\n→ {finding.remedy}" if finding.remedy and not finding.ok else ""
        table.add_row(mark, finding.name, Text(finding.detail + remedy))  # Text: [cpu] is no markup
    Console().print(table)


def _show_rows(rows: Sequence[Mapping[str, Any]], json: bool) -> None:
    if json:
        for row in rows:
            _print_json(row)
        return
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*map(_word, row.values()))
    Console().print(table)


def _word(value: object) -> str:
    """A cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _print_json(values: Mapping[str, Any]) -> None:
    print(jsonlib.dumps(values), flush=True)


def _mib(count: int | None) -> int | None:
    return None if count is None else count // MIB


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
