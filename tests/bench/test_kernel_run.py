"""The benchmark goes on whatever its worker does: dies, hangs, breaks at import."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vr_trt.bench.kernel_run import Session, schedule

# A worker of the same protocol, whose cases do what their names say.
WORKER = """
import json, os, sys, time
if "broken" in sys.argv:
    raise ImportError("broken cannot be imported")
say = lambda line: print(json.dumps(line), flush=True)
say({"cards": [{"name": name} for name in sys.argv[1:]]})
for line in sys.stdin:
    case = json.loads(line)["case"]
    if case == "raises":
        raise RuntimeError("an illegal memory access was encountered")
    if case == "dies":
        os._exit(7)
    if case == "hangs":
        time.sleep(60)
    say({"error": 0.5, "right": False} if case == "wrong" else {"ms": 1.0, "right": True})
"""


@pytest.fixture
def session(tmp_path: Path) -> Callable[[float], Session]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def command(modules: Sequence[str]) -> list[str]:
        return [sys.executable, str(script), *modules]

    def made(seconds: float) -> Session:
        deadline = time.monotonic() + seconds
        return Session(command=command, log=tmp_path / "log", deadline=deadline)

    return made


def do(session: Session, case: str, seconds: float = 20) -> dict[str, Any]:
    return session.do({"case": case, "way": "ours", "do": "time"}, seconds)


def test_a_crash_loses_one_task(session: Callable[[float], Session]) -> None:
    run = session(60)
    assert [card["name"] for card in run.cards(["good", "raises"])] == ["good", "raises"]
    assert do(run, "good")["state"] == "ok"
    failed = do(run, "raises")
    assert failed["state"] == "failed" and "illegal memory access" in failed["why"]
    assert do(run, "dies")["state"] == "failed"
    assert do(run, "good") == {"ms": 1.0, "right": True, "state": "ok"}
    assert do(run, "wrong")["state"] == "wrong"
    run.end()


def test_a_task_that_takes_too_long_is_ended(session: Callable[[float], Session]) -> None:
    run = session(60)
    run.cards(["good"])
    start = time.monotonic()
    assert do(run, "hangs", 0.5) == {"state": "failed", "why": "no answer within 0 s"}
    assert time.monotonic() - start < 10
    assert do(run, "good")["state"] == "ok"
    run.end()


def test_when_the_time_is_up_nothing_more_is_run(session: Callable[[float], Session]) -> None:
    run = session(2)
    run.cards(["good"])
    start = time.monotonic()
    assert do(run, "hangs")["state"] == "not run"  # ended by the whole run's time, not its own
    assert do(run, "good") == {"state": "not run", "why": "the time was up"}
    assert time.monotonic() - start < 10
    run.end()


def test_a_module_that_cannot_be_imported_loses_no_other(
    session: Callable[[float], Session],
) -> None:
    run = session(60)
    cards = run.cards(["first", "broken", "last"])
    assert [card["name"] for card in cards] == ["first", "last"]
    assert list(run.broken) == ["broken"] and "cannot be imported" in run.broken["broken"]
    assert do(run, "last")["state"] == "ok"
    run.end()


def test_the_important_comes_first_and_what_is_compiled_later() -> None:
    def card(name: str, importance: int, *ways: str, timed: bool = True) -> dict[str, Any]:
        about = {"name": name, "kernel": name.split()[0], "importance": importance}
        return {**about, "ways": ways, "timed": timed, "seconds": 1.0}

    cards = [
        card("minor", 1, "ours", "PyTorch"),
        card("major odd", 2, "ours", timed=False),
        card("major again", 2, "ours"),
        card("major", 0, "ours", "PyTorch compile", "PyTorch"),
        card("rival only", 0, "PyTorch"),
    ]
    tasks = [task for task, _ in schedule(cards)]
    wanted = [
        *[("major", "ours", "check"), ("minor", "ours", "check"), ("major odd", "ours", "check")],
        *[None] * 3,  # the ceilings: after the checks, before the times
        *[("major", "ours", "time"), ("major", "PyTorch", "time")],
        *[("rival only", "PyTorch", "time"), ("minor", "ours", "time")],
        *[("minor", "PyTorch", "time"), ("major again", "ours", "time")],
        ("major", "PyTorch compile", "time"),
    ]
    given = [(t["case"], t["way"], t["do"]) if "case" in t else None for t in tasks]
    assert given == wanted
