"""What tests of workers share: a film of several shots, and the command line over it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tests.media import picture

from vr_trt.runtime.journal import folder_of

# The command line with short segments, stretches and warm-ups, so that a short clip has many.
RUN = """
import sys
from vr_trt.runtime import entry, film, work_items
film.SEGMENT_FRAMES, film.SHOT_SEGMENT_FRAMES = 12, 6
work_items.STRETCH_FRAMES, work_items.REST_FRAMES = 24, 12
entry.entry_at.__defaults__ = (2,)
from vr_trt.cli import main
main(sys.argv[1:])
"""
CUTS = (14, 19, 40, 100, 111)
FRAMES = 125


def make_film(path: Path, frames: int = FRAMES, cuts: Sequence[int] = CUTS) -> Path:
    """Shots of uneven timing, 64 x 48."""
    generator = np.random.default_rng(2)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        at = 0
        for i in range(frames):
            if i in (0, *cuts):
                blocks = generator.integers(0, 255, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
            mixed = (blocks * 0.7 + picture(i, 64, 48) * 0.3).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(mixed, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            at += 40 if i % 7 else 95
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def command(film: Path, model: str, output: Path, *options: str) -> list[str]:
    """One thread a worker: other numbers round otherwise."""
    fixed = ["--profile", "360p", "--model", model, "--threads", "1", "-o", str(output)]
    fixed += ["--color", "none", "--preset", "superfast"]  # a test of order, not of pictures
    return [sys.executable, "-c", RUN, "run", str(film), *fixed, *options]


def run(film: Path, model: str, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    arguments = command(film, model, output, *options)
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def slow_after(segments: int) -> dict[str, str]:
    """The environment of a run that takes its time once so many segments are complete."""
    return {**os.environ, "SLOW_AFTER": str(segments)}  # see tests/small


def segments(output: Path) -> int:
    """Complete segments of a run that goes on."""
    return len(list(folder_of(output).glob("*.segment")))


def children(pid: int) -> list[int]:
    """Processes that a process has started and that are not gone."""
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def wait_for_none(processes: Sequence[int], seconds: float) -> list[int]:
    """Those that are still there after so long."""
    until = time.perf_counter() + seconds
    while (left := [pid for pid in processes if _runs(pid)]) and time.perf_counter() < until:
        time.sleep(0.01)
    return left


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
