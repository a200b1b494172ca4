"""A film read once ahead of its workers: its shots, and a check of each frame.

Workers read the film for themselves, each from some key frame on. What they find is compared with
what was found here, frame by frame, so that a worker which decodes something else is noticed.
"""

import zlib
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vr_trt.runtime.frames import Frame


def frame_check(frame: Frame) -> int:
    """A 32-bit checksum of the luma and the times."""
    return zlib.crc32(frame.planes[0].data, zlib.crc32(b"%d %d" % (frame.pts, frame.duration)))


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameMarks:
    """When each frame from `first` on is shown, and its check."""

    first: int
    times: "array[int]"
    checks: "array[int]"

    def part(self, first: int, stop: int) -> "FrameMarks":
        """Those of the frames first … stop − 1."""
        at = slice(first - self.first, stop - self.first)
        return FrameMarks(first=first, times=self.times[at], checks=self.checks[at])


class FilmScan:
    """Reads frames in a thread of its own; what it found so far can be looked at any time."""

    def __init__(self, frames: Iterable[Frame], first: int = 0) -> None:
        """`first`: the number of the first of the `frames`."""
        self.marks = FrameMarks(first=first, times=array("q"), checks=array("I"))
        self._starts = bytearray()  # of each frame, whether a shot begins with it
        self._stop = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vr-trt-scan")
        self._reading = self._thread.submit(self._read, frames)

    @property
    def known(self) -> int:
        """The first frame of which nothing is known yet."""
        return self.marks.first + len(self._starts)

    @property
    def done(self) -> bool:
        """True if nothing more will be found. Raises what stopped the reading, if something did."""
        if not self._reading.done():
            return False
        self._reading.result()
        return True

    def starts_shot(self, number: int) -> bool:
        """Whether a shot begins with a frame that is known."""
        return bool(self._starts[number - self.marks.first])

    def close(self) -> None:
        """Stop reading, and wait for that."""
        self._stop = True
        self._thread.shutdown()

    def _read(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            if self._stop:
                return
            self.marks.times.append(frame.pts)
            self.marks.checks.append(frame_check(frame))
            self._starts.append(frame.starts_shot)  # last: its length says what is known
