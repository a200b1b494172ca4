"""What tests change in every process that they start, see conftest's `small_pictures`.

Profiles are a third of their size. Where SLOW_AFTER is set, a run takes its time after so many
segments, so that it can be stopped before it has ended. Where DEATHS is set, workers kill themselves.
Python imports a module of this name when it starts, if its folder is in PYTHONPATH.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from vr_trt.engines import profiles
from vr_trt.engines.profiles import Profile

PAUSE = 0.2  # seconds, after each segment


def thirds() -> dict[str, Profile]:
    """The profiles by their names: 360p is 120 pixels high."""
    rows = profiles.load_profiles()
    return {name: replace(row, short_side=row.short_side // 3) for name, row in rows.items()}


def slow_down(after: int) -> None:
    """Pause whenever a segment has been noted, except the first so many."""
    from vr_trt.runtime.journal import Journal, Segment

    add = Journal.add

    def slow(journal: Journal, segment: Segment) -> None:
        add(journal, segment)
        if len(journal.segments) + len(journal.ahead) >= after:
            time.sleep(PAUSE)

    Journal.add = slow  # type: ignore


def die(deaths: Path, most: int) -> None:
    """End this process on its tenth frame, unless so many have; each leaves a file in `deaths`."""
    from vr_trt.runtime.frames import Frame
    from vr_trt.runtime.segments import SegmentSink

    write, frames = SegmentSink.write, []

    def deadly(sink: SegmentSink, frame: Frame) -> None:
        frames.append(frame.pts)
        if len(frames) == 10 and len(list(deaths.iterdir())) < most:
            (deaths / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(sink, frame)

    SegmentSink.write = deadly  # type: ignore


if __name__ == "sitecustomize":  # not where the tests import it
    small = thirds()
    profiles.load_profiles = lambda: small  # type: ignore
    if "SLOW_AFTER" in os.environ:
        slow_down(int(os.environ["SLOW_AFTER"]))
    if "DEATHS" in os.environ and "vr_trt.runtime.worker_process" in sys.orig_argv:
        die(Path(os.environ["DEATHS"]), int(os.environ["MOST_DEATHS"]))
