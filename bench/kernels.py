"""The kernels on this GPU: right first, then how fast beside the chip's limits and beside others.

    python -m vr_trt.bench.kernels [--out FOLDER] [--seconds 400] [--small] [MODULE ...]

Needs torch and triton alone. Checks every kernel against its reference on random inputs with
poisoned outputs, measures the chip's ceilings, and times our kernels and their rivals, the
important first, until the time is up. FOLDER gets `kernels.json`, which is written after every task,
and `kernels.txt`; the last line is JSON too, a digest. `--small` tries all of it on the CPU; its times
mean nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vr_trt.bench.case import MODULES, OURS, work_of
from vr_trt.bench.gpu import describe_gpu, why_no_gpu
from vr_trt.bench.kernel_report import line, overview, report
from vr_trt.bench.kernel_run import Row, Session, Task, schedule, worker_command
from vr_trt.bench.machine import describe
from vr_trt.bench.roofline import ceilings_from
from vr_trt.errors import ModelError, VrTrtError

SCHEMA = 1
SECONDS = 400.0
_BAD = {"wrong", "failed"}
_TRIES = 2  # of a rival that fails, at different sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to measure, for how long, and where to keep it."""

    out: Path
    seconds: float = SECONDS
    small: bool = False  # on the CPU, in Triton's interpreter
    modules: Sequence[str] = MODULES


@dataclass(kw_only=True, slots=True)
class Results:
    """Everything measured so far, on its way to a file."""

    path: Path
    about: Row
    ceilings: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # modules and ceilings that failed
    cases: dict[str, Row] = field(default_factory=dict)

    def add_card(self, card: Row) -> None:
        """Begin a case."""
        self.cases[card["name"]] = card | {"check": None, "times": {}}

    def add(self, task: Task, row: Row) -> None:
        """Keep a task's result, with what it means beside the ceilings."""
        if "ceiling" in task:
            name = task["ceiling"]
            if row["state"] == "ok":
                self.ceilings[name] = row["value"]
            else:
                self.problems[name] = row["why"]
        elif task["do"] == "check":
            self.cases[task["case"]]["check"] = row
        else:
            case, ceilings = self.cases[task["case"]], ceilings_from(self.ceilings)
            if ceilings is not None:
                seconds, case["bound"] = work_of(case).floor(ceilings)
                case["floor_ms"] = 1e3 * seconds
            if "ms" in row:
                row = row | work_of(case).achieved(row["ms"], ceilings)
            case["times"][task["way"]] = row

    @property
    def right(self) -> bool:
        """Whether every kernel of ours that was checked or timed gave what its reference gives."""
        checks = [case["check"]["state"] for case in self.cases.values() if case["check"]]
        ours = [
            row["state"]
            for case in self.cases.values()
            for way, row in case["times"].items()
            if way.startswith(OURS)  # "ours, by taps" as well
        ]
        states = {*checks, *ours}
        return bool(checks) and not self.problems.keys() & set(MODULES) and not states & _BAD

    def document(self) -> Row:
        """All of it, as JSON takes it."""
        return {
            "schema": SCHEMA,
            **self.about,
            "ceilings": self.ceilings,
            "problems": self.problems,
            "right": self.right,
            "cases": list(self.cases.values()),
        }

    def write(self) -> None:
        """Replace the file in one step."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.document(), indent=1) + "\n")
        partial.replace(self.path)


def run(request: Request) -> Row:
    """Measure, and return the document of results; ModelError where no GPU is."""
    why = why_no_gpu(request.small)
    if why is not None:
        raise ModelError(why)
    device, start = "cpu" if request.small else "cuda", time.monotonic()
    request.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": describe(), "gpu": describe_gpu(device), "small": request.small}
    results = Results(path=request.out / "kernels.json", about=about)
    log = request.out / "kernels.log"
    log.unlink(missing_ok=True)
    session = Session(
        command=worker_command(device, request.small), log=log, deadline=start + request.seconds
    )
    try:
        _measure(session, results, request.modules)
    finally:
        session.end()
    results.about |= {"seconds": round(time.monotonic() - start, 1)}
    results.write()
    document = results.document()
    (request.out / "kernels.txt").write_text(report(document) + "\n")
    return document


def _measure(session: Session, results: Results, modules: Sequence[str]) -> None:
    cards = session.cards(modules)
    results.problems |= session.broken
    for card in cards:
        results.add_card(card)
    failed: dict[tuple[str, str], list[str]] = {}  # reasons by kernel and rival
    for task, seconds in schedule(cards):
        rival = _rival(task, results)
        reasons = failed.setdefault(rival, []) if rival else []
        if len(reasons) >= _TRIES:  # each failure costs a new worker
            row = {"state": "not run", "why": f"failed before: {reasons[-1]}"}
        else:
            row = session.do(task, seconds)
        if row["state"] == "failed":
            reasons.append(row["why"])
        results.add(task, row)
        results.write()
        said = [*task.values(), row["state"], row.get("why", "")]
        print(" | ".join(part for part in said if part), file=sys.stderr, flush=True)


def _rival(task: Task, results: Results) -> tuple[str, str] | None:
    """The kernel and the rival that a task times; None for all other tasks."""
    if task.get("do") != "time" or task["way"] == OURS:
        return None
    return results.cases[task["case"]]["kernel"], task["way"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="where to keep it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all of it")
    parser.add_argument("--small", action="store_true", help="try the harness on the CPU")
    given = parser.parse_args()
    request = Request(
        out=given.out,
        seconds=given.seconds,
        small=given.small,
        modules=given.modules or MODULES,
    )
    try:
        document = run(request)
    except VrTrtError as error:
        print(f"vr-trt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(overview(document))
    print(line(document))
    sys.exit(not document["right"])


if __name__ == "__main__":
    main()
