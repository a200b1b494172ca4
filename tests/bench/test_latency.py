"""`vr-trt bench latency`: what it refuses, how long it goes on, what it makes of the measurements."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from matplotlib import image
from rich.console import Console

from vr_trt.bench import latency
from vr_trt.bench.latency import Entry, Request, check_all, command, run, time_rounds
from vr_trt.bench.latency_plot import plot
from vr_trt.bench.latency_process import Measured
from vr_trt.bench.latency_report import notes, show
from vr_trt.bench.latency_summary import summarise
from vr_trt.bench.latency_trace import Calls, calls_of
from vr_trt.bench.latency_worker import Job
from vr_trt.bench.roofline import Ceilings, Work
from vr_trt.errors import ModelError, UsageError

RIGHT = {
    "state": "ok",
    "against": "the plain networks",
    "limit": 0.002,
    "errors": {"decoder": 1e-4},
}
WRONG = {**RIGHT, "state": "wrong", "errors": {"decoder": 0.3}, "wrong": ["decoder"]}
WORK: dict[str, Any] = {"generator": {"unit": "wide", "flops": 10**9, "bytes": 10**6}}


def measured(fps: float, **changes: Any) -> Measured:
    calls = Calls(
        stages={"generator": [0.2, 0.4], "write": [0.1]}, frames=[1.0, 2.0], first_to_end=0.5
    )
    values: dict[str, Any] = {
        "frames": 20,
        "engines": "onnxruntime",
        "cold": 3.0,
        "steady": 20 / fps,
        "cpu_busy": 0.9,
        "peak_host_mib": 1000.0,
        "calls": calls,
        "device": {},
    }
    return Measured(**(values | changes))


def entry(way: str = "vr-trt") -> Entry:
    return Entry(job=Request().job("360p", Path("clip.mp4"), Path("work"), way), clip="demo")


def test_what_is_wrong_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    monkeypatch.setattr(latency, "ask", lambda command: WRONG | {"work": {}})
    monkeypatch.setattr(latency, "measure", lambda job: pytest.fail("it was timed"))
    monkeypatch.setattr(latency, "measured", lambda device: pytest.fail("it went on"))
    with pytest.raises(ModelError, match=r"wrong, nothing was timed: .*decoder by 0\.3; 0\.002"):
        run(Request(clips=(str(clip),)))


def test_one_wrong_profile_of_two_stops_all() -> None:
    verdicts = iter([RIGHT, WRONG])
    with pytest.raises(ModelError, match="nano at 540p is wrong"):
        check_all(
            Request(profiles=("360p", "540p")),
            Path("clip.mp4"),
            Path("work"),
            lambda job: next(verdicts),
            lambda line: None,
        )


def rounds(
    fps: Iterator[float], entries: list[Entry], seconds: float = 1e6, runs: int = 3
) -> list[int]:
    request = Request(runs=runs, seconds=seconds)
    begun = monotonic()
    time_rounds(entries, request, lambda job: measured(next(fps)), lambda line: None, begun)
    return [len(one.processes) for one in entries]


def test_three_that_agree_are_enough() -> None:
    assert rounds(iter([1.0, 1.01, 1.02]), [entry()]) == [3]
    assert rounds(iter([1.0] * 4), [entry()], runs=4) == [4]


def test_more_where_they_do_not_agree_and_not_for_ever() -> None:
    assert rounds(iter([1.0, 1.2, 1.0, 1.0, 1.0]), [entry()]) == [5]
    wild = iter([1.0, 1.2] * 10)
    assert rounds(wild, [entry()]) == [9]
    assert rounds(iter([1.0, 1.2, 1.0]), [entry()], seconds=0) == [3]  # time is up, three are due


def test_rows_take_turns_and_a_settled_one_is_left_alone() -> None:
    order: list[str] = []
    speeds = {"vr-trt": iter([1.0] * 9), "torch": iter([1.0, 1.2, 1.0, 1.0, 1.0])}

    def measure(job: Job) -> Measured:
        order.append(job.way)
        return measured(next(speeds[job.way]))

    entries = [entry(), entry("torch")]
    time_rounds(entries, Request(), measure, lambda line: None, monotonic())
    assert order == ["vr-trt", "torch"] * 3 + ["torch"] * 2


def test_a_rival_that_fails_is_told_and_ours_is_not_forgiven() -> None:
    def broken(job: Job) -> Measured:
        if job.way == "torch":
            raise ModelError("out of memory")
        return measured(1.0)

    entries = [entry("torch"), entry()]
    time_rounds(entries, Request(), broken, lambda line: None, monotonic())
    assert entries[0].failed == "out of memory" and len(entries[1].processes) == 3
    with pytest.raises(ModelError, match="no engine"):
        time_rounds([entry()], Request(), _no_engine, lambda line: None, monotonic())


def _no_engine(job: Job) -> Measured:
    raise ModelError("no engine")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"runs": 2}, "2 runs"), ({"against": ("nobody",)}, "nor a folder with an adapter.py")],
)
def test_requests_that_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Request(**wrong)


def test_clips_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="none.mp4 is not a file"):
        run(Request(clips=("none.mp4",)))


def test_the_command_names_no_folders_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "adapter.py").touch()
    words = command(Request(against=(str(tmp_path), "torch"), precision="fp16"))
    assert str(tmp_path) not in words
    assert words.startswith(
        "vr-trt bench latency --model nano --profile 360p --clip demo --against"
    )
    assert words.endswith("--against torch --precision fp16 --frames 37 --runs 3")


def test_a_trace_becomes_calls() -> None:
    spans = [
        {"name": "read", "ts": 0, "dur": 1_000_000},
        {"name": "read", "ts": 1_000_000, "dur": 1_000_000},
        {"name": "read", "ts": 2_000_000, "dur": 0},  # the end
        {"name": "generator", "ts": 2_000_000, "dur": 2_000_000},
        {"name": "write", "ts": 5_000_000, "dur": 500_000},
        {"name": "write", "ts": 6_000_000, "dur": 0},
        {"name": "write", "ts": 7_000_000, "dur": 1_000_000},  # publishes
    ]
    calls = calls_of(spans)
    assert calls.frames == [4.5, 4.0]  # read at 1 and 2, written at 5.5 and 6
    assert calls.first_to_end == 2.5
    assert calls.stages == {"read": [1, 1, 0], "generator": [2], "write": [0.5, 0, 1]}


def test_a_row_sums_up_its_processes() -> None:
    ceilings = Ceilings(flops=10e9, bytes=1e12)
    work = {name: Work(**each) for name, each in WORK.items()}
    device = {"peak_device_mib": 10.0, "joules_per_frame": 3.0}
    row = summarise([measured(fps, device=device) for fps in (1.0, 2.0, 4.0)], work, ceilings)
    assert row["fps"] == 2.0 and row["spread"] == 1.5 and row["settled"] is False
    assert row["frame_seconds"]["p50"] == 1.5
    stage = row["stages"]["generator"]
    assert stage["calls"] == 2 and stage["p50"] == pytest.approx(0.3)
    assert stage["of_floor"] == pytest.approx(0.1 / 0.3)
    assert row["of_floor"] == pytest.approx(0.2 / 10)  # two calls of 0.1 s in a pass of 10 s
    assert row["gpu_busy"] is None and row["joules_per_frame"] == 3.0
    assert "of_floor" not in row["stages"]["write"]


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What `run` makes of measurements that need no time."""
    clip = tmp_path / "clip.mp4"
    clip.touch()
    speeds = {"vr-trt": 3.0, "torch": 1.5}
    monkeypatch.setattr(latency, "ask", lambda command: RIGHT | {"work": WORK})
    monkeypatch.setattr(latency, "measure", lambda job: measured(speeds[job.way]))
    ceilings = Ceilings(flops=10e9, bytes=1e12)
    monkeypatch.setattr(latency, "measured", lambda device: (ceilings, "guessed"))
    return run(Request(clips=(str(clip),), against=("torch",)))


def test_the_document(document: dict[str, Any]) -> None:
    """The fields that docs promise, as JSON gives them back."""
    back = json.loads(json.dumps(document))
    assert back == document
    assert {"schema", "kind", "machine", "command", "checks", "ceilings", "rows"} <= back.keys()
    assert {"processor", "cores", "packages", "commit", "gpu"} <= back["machine"].keys()
    assert "work" not in back["checks"]["360p"]
    ours, torch = back["rows"]
    assert (ours["way"], torch["way"]) == ("vr-trt", "torch")
    for row in back["rows"]:
        assert {
            *("fps", "fps_each", "spread", "settled", "processes", "cold_seconds"),
            *("steady_seconds", "cpu_busy", "peak_host_mib", "frame_seconds", "stages"),
            *("peak_device_mib", "gpu_busy", "joules_per_frame", "of_floor", "engines"),
        } <= row.keys()
    assert ours["of_floor"] and torch["of_floor"] is None  # theirs is other arithmetic


def test_the_tables_and_the_plot(document: dict[str, Any], tmp_path: Path) -> None:
    document["load_before"] = 2.0
    console = Console(width=200, record=True)
    show(document, console)
    shown = console.export_text()
    assert "2.00x" in shown and "generator" in shown and "0.0001" not in shown
    assert "decoder 1.0e-04 from the plain networks" in shown
    assert [line for line in notes(document)] == [
        "the machine was shared: its load was 2.0 before the first process"
    ]
    plot(document, tmp_path / "plot.png")
    picture = image.imread(tmp_path / "plot.png")
    assert picture.shape[1] > 1000 and picture.std() > 0.05


def test_what_did_not_settle_or_failed_is_said(document: dict[str, Any]) -> None:
    ours, torch = document["rows"]
    document["load_before"] = None
    ours |= {"settled": False, "spread": 0.2}
    document["rows"][1] = {name: torch[name] for name in ("way", "profile", "clip")} | {
        "failed": "out of memory"
    }
    lines = list(notes(document))
    assert "3 processes lie 20% apart" in lines[0] and "failed: out of memory" in lines[1]
