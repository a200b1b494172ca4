"""PyAV's own way of CUDA frames, in and out, with a driver that does next to nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cuda_stub import make_cuda_stub

from vr_trt.engines.local_gpu import present_gpu

RUNS = Path(__file__).with_name("run_pyav_on_card.py")


@pytest.mark.skipif(present_gpu() is not None, reason="the real driver is here")
def test_frames_are_lent_taken_and_given_back(tmp_path: Path) -> None:
    if not make_cuda_stub(tmp_path):
        pytest.skip("no C compiler")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(RUNS)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout + done.stderr
