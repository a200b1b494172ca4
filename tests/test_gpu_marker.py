"""Tests that need a GPU: skipped where there is none, failed where one was promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NEEDS_A_GPU = "import pytest\n\n@pytest.mark.gpu\ndef test_nothing() -> None:\n    pass\n"


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_without_a_gpu(tmp_path: Path, required: str, outcome: str) -> None:
    """The real conftest beside a test of one line; no device is visible to it."""
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_one.py").write_text(NEEDS_A_GPU, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "VR_TRT_REQUIRE_GPU": required}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (not required)
