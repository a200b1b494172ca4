"""A long run takes no more memory than a short one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.media import make_video


def peak_of_a_run(folder: Path, frames: int) -> int:
    """Peak bytes of the process that restores a clip of so many frames with nano."""
    film = make_video(folder / f"{frames}.mp4", frames=frames, size=(64, 64))
    command = [sys.executable, "-m", "vr_trt", "run", str(film), "--profile", "360p"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0
    return used.ru_maxrss


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="no peak memory of a child on this system")
def test_six_times_the_frames_take_as_much_memory(tmp_path: Path) -> None:
    short, long = (peak_of_a_run(tmp_path, frames) for frames in (50, 300))
    assert long < 1.05 * short
