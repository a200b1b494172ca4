"""Reliable timestamps, made from those that a file has."""

from collections.abc import Iterable, Iterator

import av

from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.frames import Frame, VideoInfo

_LONGEST_GAP = 3600  # seconds; no frame is shown for longer, such a jump is damage
_SHORT_BY = 0.25  # seconds; a video that ends this much earlier than announced was cut off


class Clock:
    """Makes timestamps strictly increasing where a file has none or contradicts itself.

    Times that are in order stay exactly as they are.
    """

    def __init__(self, info: VideoInfo, whole: bool = True) -> None:
        """`whole`: reading begins at the video's start."""
        self._whole = whole
        self.step = max(1, round(1 / (info.frame_rate * info.time_base)))
        self.repaired = 0
        self.short_by: float | None = None  # seconds
        self._info = info
        self._first: int | None = None
        self._next = 0  # where a frame without a timestamp goes
        self._jump = 0  # what to add after a jump that cannot be real

    def pts(self, decoded: av.VideoFrame) -> int:
        """The frame's timestamp, or one that was made up, in units of the time base."""
        pts = decoded.pts
        if pts is None:
            self.repaired += 1
            pts = self._next
        elif self._first is not None:
            distance = pts + self._jump - self._next
            if abs(distance * self._info.time_base) > _LONGEST_GAP:
                self.repaired += 1
                self._jump -= distance
            pts += self._jump
        if self._first is None:
            self._first = pts
        self._next = pts + (decoded.duration or self.step)
        return pts

    def in_order(self, before: int | None, held: int, following: int) -> tuple[int, int]:
        """`held` and `following` so that both are later than what is before them.

        One of them is wrong if they are not; it is `held` if the other fits to what was `before`.
        """
        if following > held:
            return held, following
        self.repaired += 1
        if before is not None and following > before + 1:
            return min(before + self.step, following - 1), following
        return held, held + 1

    def ended(self, last: Frame) -> None:
        """Note if the video stops well before its announced length."""
        if self._info.seconds is None or self._first is None or not self._whole:
            return
        lasted = float((last.pts + last.duration - self._first) * self._info.time_base)
        if self._info.seconds - lasted > _SHORT_BY:
            self.short_by = self._info.seconds - lasted


def shown_as_decoded(frames: Iterable[av.VideoFrame], decoder: Decoder) -> Iterator[av.VideoFrame]:
    """`frames` of a file that knows times of decoding only, with times at which they are shown.

    The first frame is shown at the first of those times, the others keep their distance from it. A
    frame that has none is left where the one before it ends.
    """
    delay: int | None = None  # from decoding to showing
    following = 0
    for frame in frames:
        if frame.dts is None or decoder.first_dts is None:
            frame.pts = following
        else:
            delay = frame.dts - decoder.first_dts if delay is None else delay
            frame.pts = frame.dts - delay
        following = frame.pts + max(1, frame.duration)
        yield frame
