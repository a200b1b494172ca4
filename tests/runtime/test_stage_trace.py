"""The trace of a run, its report and its events."""

import json
import threading
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video

from vr_trt.cli import exit_code
from vr_trt.runtime.pipeline import Timing
from vr_trt.runtime.stage_trace import Trace, stage_call, tracing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


def events(shown: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown.splitlines()]


def test_a_run_tells_what_it_did(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))
    trace, report = tmp_path / "trace.json", tmp_path / "report.json"
    options = ["--profile", "360p", "--model", model, "--json"]
    files = ["--trace", str(trace), "--report", str(report)]
    assert exit_code(["run", str(film), *options, *files]) == 0
    last = events(capsys.readouterr().out)[-1]
    timing = last["timing"]
    assert last["event"] == "done" and last["frames"] == timing["frames"] == 30
    assert timing["overlap"] == pytest.approx(
        (timing["read"] + timing["restore"] + timing["write"]) / timing["seconds"]
    )
    assert timing["by_slowest"] >= 1
    # 21 frames fill a window; then one every four, and the last is repeated to end a chunk
    calls = {name: stage["calls"] for name, stage in timing["stages"].items()}
    assert calls == {
        "read": 31,
        "to_model": 33 + 30,
        "encode_start": 1,
        "encode_step": 7,
        "generator": 2,
        "decode_start": 1,
        "decode_step": 7,
        "to_video": 30,
        "write": 31,
    }
    written = json.loads(report.read_text())
    assert {key: written[key] for key in last if key != "event"} == {
        key: value for key, value in last.items() if key != "event"
    }
    assert written["settings"]["seed"] == 0 and written["versions"]["pyav"]
    check_trace(json.loads(trace.read_text()), calls, timing["seconds"])


def check_trace(rows: list[dict[str, Any]], calls: dict[str, int], seconds: float) -> None:
    """Every call is there, on its thread's row, one after the other."""
    spans = [row for row in rows if row["ph"] == "X"]
    assert {name: sum(row["name"] == name for row in spans) for name in calls} == calls
    names = {row["tid"]: row["args"]["name"] for row in rows if row["ph"] == "M"}
    assert len(names) == 3 and all(name.startswith("vr-trt") for name in names.values())
    of_thread = {stage: {row["tid"] for row in spans if row["name"] == stage} for stage in calls}
    assert all(len(threads) == 1 for threads in of_thread.values())
    assert len({*of_thread["read"], *of_thread["generator"], *of_thread["write"]}) == 3
    for thread in names:
        row_end = 0
        for span in sorted((s for s in spans if s["tid"] == thread), key=lambda s: s["ts"]):
            assert span["ts"] >= row_end - 2  # microseconds: both ends are rounded
            row_end = span["ts"] + span["dur"]
            assert row_end <= (seconds + 5) * 1e6
    queues = {row["name"] for row in rows if row["ph"] == "C"}
    assert len(queues) == 2


def test_errors_are_events_too(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(tmp_path / "none.mp4"), "--model", model, "--json"]
    assert exit_code(arguments) == 2
    shown = capsys.readouterr()
    (event,) = events(shown.out)
    assert event == {
        "event": "error",
        "message": shown.err.removeprefix("vr-trt: ").strip(),
        "exit_code": 2,
    }


@pytest.mark.parametrize("option", ["--trace", "--report"])
def test_files_that_cannot_be_written_are_refused_before_work(
    tmp_path: Path, model: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_video(tmp_path / "in.mp4", frames=3, size=(64, 48))
    where = tmp_path / "no" / "folder.json"
    arguments = ["run", str(film), "--model", model, option, str(where)]
    assert exit_code(arguments) == 2
    assert "folder.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_calls_of_several_threads_add_up(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")

    def work() -> None:
        for _ in range(100):
            trace.add("work", 1.0, 1.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace.close()
    trace.add("late", 2.0, 3.0)  # counted, not written
    assert trace.stages["work"].calls == 400 and trace.stages["work"].seconds == 200
    assert sum(row["ph"] == "X" for row in json.loads((tmp_path / "trace.json").read_text())) == 400


def test_outside_of_a_run_nothing_is_traced() -> None:
    with stage_call("alone"):
        pass
    with tracing(None) as trace, stage_call("inside"):
        sleep(0.01)
    assert list(trace.stages) == ["inside"] and trace.stages["inside"].seconds >= 0.01


def test_overlap_and_the_slowest_thread() -> None:
    timing = Timing(frames=10, seconds=4.0, read=1.0, restore=3.0, write=2.0)
    assert timing.overlap == 1.5 and timing.by_slowest == pytest.approx(4 / 3)
