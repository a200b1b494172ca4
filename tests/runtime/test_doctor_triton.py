"""What the doctor says of the triton backend where only something beside it is missing."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from vr_trt.runtime import doctor


@pytest.fixture(autouse=True)
def all_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU, the packages, a compiler, and the headers in the folder that is returned."""
    monkeypatch.setattr(doctor, "present_gpu", lambda: SimpleNamespace(sm=90))
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "version", lambda name: "2.11.0+cu130")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").touch()
    return tmp_path


def test_all_is_there() -> None:
    found = doctor._triton()
    assert found.ok and found.detail == "sm_90, torch 2.11.0+cu130" and not found.remedy


def test_a_compiler_is_needed_where_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = doctor._triton()
    assert not found.ok and "C compiler" in found.detail and "gcc" in found.remedy
    monkeypatch.setenv("CC", "tcc")  # Triton takes it at its word
    assert doctor._triton().ok


def test_and_so_are_python_s_headers(all_is_there: Path) -> None:
    (all_is_there / "Python.h").unlink()
    found = doctor._triton()
    assert not found.ok and "Python.h" in found.detail and "python3-dev" in found.remedy
