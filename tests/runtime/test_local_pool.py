"""Processes that serve, die, and end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.servers import Bug, NoServer, Square, Squares, results
from tests.spreading import children, wait_for_none

from vr_trt.errors import ModelError, VrTrtError
from vr_trt.runtime.local_pool import LocalPool
from vr_trt.runtime.schedule import Schedule
from vr_trt.runtime.worker_group import card_environment
from vr_trt.runtime.workers import Ready, Said

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find tests.servers."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def test_tasks_go_to_processes_and_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One of them kills its worker."""
    tasks = [Square(n, str(tmp_path / "killed") if n == 5 else "") for n in range(12)]
    found, said, schedule = results(LocalPool(Squares(), [{}, {}]), tasks)
    assert found == {n: n * n for n in range(12)}
    assert Said("half of 7") in said and Ready("squares") in said
    assert len(schedule.warnings) == 1 and "killed" in schedule.warnings[0]
    assert capfd.readouterr().out == ""


def test_errors_come_back_as_they_are() -> None:
    with pytest.raises(ModelError, match="thirteen"):
        results(LocalPool(Squares(), [{}]), [Square(13)])
    with pytest.raises(ModelError, match="no such network"):
        results(LocalPool(NoServer(), [{}]), [Square(1)])


def test_a_mistake_of_ours_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VrTrtError, match="3 workers ended on it .exit code 1."):
        results(LocalPool(Bug(), [{}, {}]), [Square(1)])
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if "ZeroDivisionError: one by none in" in line]) == 3
    assert not any("Traceback" in line for line in lines)


def test_closing_ends_what_is_running() -> None:
    pool = LocalPool(Squares(), [{}])
    schedule = Schedule(pool)
    schedule.add(Square(99))
    while not any(isinstance(message, Said) for _, message in schedule.step(5)):
        pass
    processes = pool.processes
    pool.close()
    assert processes and not wait_for_none(processes, 2)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(sent: signal.Signals) -> None:
    """In the middle of a task that would take a minute."""
    code = (
        "from tests.servers import Square, Squares\n"
        "from vr_trt.runtime.local_pool import LocalPool\n"
        "from vr_trt.runtime.schedule import Schedule\n"
        "schedule = Schedule(LocalPool(Squares(), [{}, {}]))\n"
        "schedule.add(Square(99))\n"
        "while True: print([m for _, m in schedule.step(5)], flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while "half of 99" not in process.stdout.readline():
        time.sleep(0.001)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(sent)
    process.communicate()
    assert not wait_for_none(workers, 3)


def test_each_worker_sees_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert card_environment(2) == {"CUDA_VISIBLE_DEVICES": "2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    assert [card_environment(n)["CUDA_VISIBLE_DEVICES"] for n in (0, 1)] == ["3", "GPU-abc"]
