"""Many files: some fail, a worker dies, the batch is stopped, and it goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_image, read_frames
from tests.spreading import children, make_film, slow_after, wait_for_none

from vr_trt import cli_batch
from vr_trt.runtime import batch
from vr_trt.runtime.manifest import Asked
from vr_trt.runtime.restorer import Restorer

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_film(tmp_path / "a.mkv", 20, (9,))
    make_film(tmp_path / "b.mkv", 30, ())
    make_image(tmp_path / "c.png", size=(50, 30))
    (tmp_path / "d.mp4").write_bytes(b"no film")
    lines = [
        {"input": "a.mkv"},
        {"input": "b.mkv", "seed": 5, "output": "own.mkv"},
        {"input": "d.mp4"},
        {"input": "c.png"},
        {"input": "a.mkv", "range": "0-5", "output": "part.mp4"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def command(folder: Path, model: str, *options: str) -> list[str]:
    fixed = ["--profile", "360p", "--model", model, "--color", "none", "-o", str(folder / "out")]
    return [sys.executable, "-m", "vr_trt", "batch", str(folder / "list.jsonl"), *fixed, *options]


def run(folder: Path, model: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the report's rows."""
    arguments = command(folder, model, *options, "--json")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    report = json.loads((folder / "list.jsonl.report.json").read_text())
    assert events[-1]["event"] == "batch" and events[-1]["done"] == report["done"]
    rows = report["files"]
    assert sorted(event["input"] for event in events[:-1]) == sorted(row["input"] for row in rows)
    return done.returncode, rows


def states(rows: list[dict[str, Any]]) -> list[str]:
    return [row["status"] for row in rows]


def test_failures_do_not_stop_it_and_what_is_done_is_skipped(folder: Path, model: str) -> None:
    code, rows = run(folder, model, "--workers", "2")
    assert code == 2
    assert states(rows) == ["done", "done", "failed", "done", "done"]
    assert "not a video or image" in rows[2]["reason"]
    assert [row["frames"] for row in rows] == [20, 30, 0, 1, 5]
    assert all(row["fps"] > 0 for row in rows if row["status"] == "done")
    assert len(read_frames(folder / "out/part.mp4")) == 5
    made = {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()}
    assert {path.name for path in made} == {"a.mkv", "own.mkv", "c.png", "part.mp4"}

    code, rows = run(folder, model, "--workers", "1")  # other workers have other threads
    assert code == 2
    assert states(rows) == ["skipped", "skipped", "failed", "skipped", "skipped"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()} == made

    make_film(folder / "d.mp4", 8, ())
    (folder / "out/own.mkv").unlink()
    text = (folder / "list.jsonl").read_text().replace('"0-5"', '"0-4"')
    (folder / "list.jsonl").write_text(text)
    code, rows = run(folder, model)
    assert code == 0
    assert states(rows) == ["skipped", "done", "done", "skipped", "done"]
    assert len(read_frames(folder / "out/part.mp4")) == 4


def test_a_stranger_is_not_overwritten(folder: Path, model: str) -> None:
    (folder / "out").mkdir()
    (folder / "out/a.mkv").write_bytes(b"somebody's")
    (folder / "list.jsonl").write_text('{"input": "a.mkv"}\n')
    code, rows = run(folder, model)
    assert code == 2 and "exists" in rows[0]["reason"]
    assert (folder / "out/a.mkv").read_bytes() == b"somebody's"
    code, rows = run(folder, model, "--overwrite")
    assert code == 0 and states(rows) == ["done"]


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stopped_batch_goes_on(folder: Path, model: str, sent: signal.Signals) -> None:
    """It is stopped within the second film, whose segments are kept; a worker dies before that."""
    make_film(folder / "b.mkv", 200, (50, 100, 150))
    process = subprocess.Popen(
        command(folder, model),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=slow_after(1),
    )
    kept = folder / "out" / ".own.mkv.resume"
    wait_until(lambda: len(list(kept.glob("*.segment"))) >= 1)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)  # its film is taken up by the next one
    wait_until(lambda: children(process.pid) not in ([], [worker]))
    wait_until(lambda: len(list(kept.glob("*.segment"))) >= 2)
    workers = children(process.pid)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=20)
    assert not wait_for_none(workers, 5)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped by the user with 1 of 5 files done; the same command goes on" in errors
    code, rows = run(folder, model)
    assert code == 2 and states(rows) == ["skipped", "done", "failed", "done", "done"]
    assert len(read_frames(folder / "out/own.mkv")) == 200


def wait_until(true: Any) -> None:
    until = time.perf_counter() + 60
    while not true():
        assert time.perf_counter() < until
        time.sleep(0.005)


def test_a_foreign_report_is_not_overwritten(folder: Path, model: str) -> None:
    (folder / "notes.json").write_text('{"mine": 1}')
    arguments = command(folder, model, "--report", str(folder / "notes.json"))
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not a report of a batch" in done.stderr
    assert (folder / "notes.json").read_text() == '{"mine": 1}'


def test_a_batch_asks_for_all_that_a_restorer_is_made_of() -> None:
    taken = set(signature(Restorer).parameters) - {"threads"}  # those are the workers'
    assert set(batch._OF_RESTORER) == taken <= {field.name for field in fields(Asked)}
    offered = set(signature(cli_batch.batch).parameters)
    assert taken <= offered
