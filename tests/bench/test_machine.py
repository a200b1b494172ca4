"""What is written beside every figure."""

import pytest

from vr_trt.bench.machine import command_line, describe


def test_the_command_names_no_folders_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/me/bench/workers.py", "2", "--out", "/tmp/me/a.json"])
    assert command_line() == "python -m vr_trt.bench.workers 2 --out a.json"


def test_the_machine_is_described() -> None:
    found = describe()
    assert found["processor"] and found["cores"] and found["memory_gib"]
    assert isinstance(found["packages"], dict) and found["packages"]["numpy"]
