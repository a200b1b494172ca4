"""What `vr-trt engines` prints: progress on standard error, results on standard output."""

import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table

from vr_trt.engines.build import BuildRequest, Outcome, Watch
from vr_trt.engines.cache import Engine
from vr_trt.engines.child import Moment
from vr_trt.engines.plan_report import PlanReport
from vr_trt.engines.prune import Removal
from vr_trt.engines.spec import Change
from vr_trt.engines.verify import Finding
from vr_trt.runtime.counted import counted

MB = 1e6
_WIDE = 200  # columns


class BuildDisplay:
    """One line a stage, and below it what is done now, where somebody looks at a terminal."""

    def __init__(self, status: Status, as_json: bool) -> None:
        self._status = status
        self._as_json = as_json
        self._counts = {"built": 0, "found": 0}
        # The line in progress takes standard output over; what is piped must not go that way.
        self._out = None if sys.stdout.isatty() else sys.stdout

    def says(self, line: str) -> None:
        """A remark."""
        self._status.console.print(line, highlight=False, markup=False)

    def watch(self, request: BuildRequest) -> Watch:
        """Who hears of the builds of `request`."""

        def doing(what: str, moment: Moment) -> None:
            self._status.update(
                f"{request.backend} {what}: {moment.doing}, {moment.seconds:.0f} s, "
                f"{moment.bytes / MB:.0f} MB"
            )

        return Watch(doing=doing, done=self._done, says=self.says)

    def finish(self) -> None:
        """The last line."""
        if not self._as_json:
            print(
                f"{self._counts['built']} built, {self._counts['found']} up to date", file=self._out
            )

    def _done(self, outcome: Outcome) -> None:
        self._counts[outcome.action] += 1
        if self._as_json:
            print(jsonlib.dumps(_outcome_row(outcome)), file=self._out, flush=True)
            return
        if outcome.reason:
            self.says(outcome.reason)
        if outcome.changes:
            self.says(f"{outcome.stage}: changed {_listed(outcome.changes)}")
        print(_outcome_line(outcome), file=self._out, flush=True)
        if outcome.engine.refusal:
            self.says(f"{outcome.stage}: {outcome.engine.refusal}")


@contextmanager
def build_display(as_json: bool) -> Iterator[BuildDisplay]:
    """Progress on standard error."""
    status = Console(stderr=True).status("starting")
    display = BuildDisplay(status, as_json)
    with status:
        yield display


def show_engines(engines: Sequence[Engine], root: Path, as_json: bool) -> None:
    """The engines as a table, or one JSON line each."""
    rows = [
        {
            "stage": engine.spec.stage,
            "model": engine.spec.model,
            "profile": engine.about.profile,
            "size": str(engine.about.canvas),
            "precision": engine.spec.precision,
            "offered": "no" if engine.refusal else "yes",
            "backend": f"{engine.spec.backend} {engine.spec.backend_version}",
            "targets": _targets(engine),
            "MB": round(engine.bytes / MB, 1),
            "seconds": round(engine.about.seconds.get("all", 0), 1),
            "digest": engine.spec.digest[:12],
        }
        for engine in engines
    ]
    _show(rows, as_json, f"{counted(len(rows), 'engine')} in {root}")


def show_finding(finding: Finding, as_json: bool) -> None:
    """One line."""
    if as_json:
        row = {"name": finding.name, "state": finding.state, "detail": finding.detail}
        print(jsonlib.dumps(row), flush=True)
    else:
        detail = f": {finding.detail}" if finding.detail else ""
        print(f"{finding.state:8} {finding.name}{detail}", flush=True)


def show_removed(removed: Sequence[Removal], dry_run: bool, as_json: bool) -> None:
    """What went, or would go."""
    for removal in removed:
        if as_json:
            row = {"name": removal.name, "reason": removal.reason, "bytes": removal.bytes}
            print(jsonlib.dumps(row))
        else:
            verb = "would remove" if dry_run else "removed"
            print(f"{verb} {removal.name} ({removal.bytes / MB:.1f} MB): {removal.reason}")
    if not as_json:
        whole = sum(removal.bytes for removal in removed)
        print(f"{len(removed)} folders, {whole / MB:.1f} MB")


def show_fusions(report: PlanReport, as_json: bool) -> None:
    """The kernels of a plan by kind."""
    if as_json:
        print(jsonlib.dumps(report.as_json()))
        return
    rows = [
        {
            "kind": kind,
            "kernels": count,
            "MB": round(report.traffic[kind] / 1e6, 1),  # read and written, weights apart
            "most frequent": report.example(kind),
        }
        for kind, count in report.kinds.items()
    ]
    targets = ", ".join(report.targets) or "any"
    _show(
        rows,
        False,
        f"{counted(report.kernels, 'kernel')} and {counted(report.stubs, 'stub')} for {targets}",
    )


def _show(rows: Sequence[dict[str, Any]], as_json: bool, caption: str) -> None:
    if as_json:
        for row in rows:
            print(jsonlib.dumps(row))
        return
    if not rows:  # rich leaves out the caption of an empty table
        print(caption)
        return
    table = Table(box=None, caption=caption, caption_justify="left")
    for name in rows[0]:
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console()
    if not console.is_terminal:  # nobody's lines need to be folded
        console.width = _WIDE
    console.print(table)


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    engine = outcome.engine
    return {
        "stage": outcome.stage,
        "action": outcome.action,
        "reason": outcome.reason,
        "changes": [str(change) for change in outcome.changes],
        "refusal": outcome.engine.refusal,
        "plan": str(engine.plan),
        "digest": engine.spec.digest,
        "seconds": dict(engine.about.seconds),
        "peak_bytes": engine.about.peak_bytes,
        "bytes": engine.bytes,
    }


def _outcome_line(outcome: Outcome) -> str:
    engine, spec = outcome.engine, outcome.engine.spec
    what = f"{outcome.stage:13} {spec.backend} {_targets(engine)} {spec.precision}"
    if outcome.action == "found":
        return f"{what}: up to date, {engine.folder}"
    about = engine.about
    return (
        f"{what}: {about.seconds['all']:.1f} s, {about.peak_bytes / MB:.0f} MB of memory, plan "
        f"{engine.plan.stat().st_size / MB:.1f} MB, {engine.folder}"
    )


def _targets(engine: Engine) -> str:
    return " ".join(f"sm_{sm}" for sm in engine.spec.targets) or "cpu"


def _listed(changes: Sequence[Change]) -> str:
    return "; ".join(str(change) for change in changes)
