"""The frames of a run: those of its range, with the cuts marked."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from vr_trt.errors import UsageError
from vr_trt.runtime.cut_list import Cuts
from vr_trt.runtime.frames import Frame, VideoInfo

_NUMBER = r"\d{1,18}"  # of so many digits at most: Python refuses thousands
_SECONDS = rf"{_NUMBER}(?:\.{_NUMBER})?"
_TIME = re.compile(rf"(?:({_NUMBER}):)?({_NUMBER}):({_SECONDS})|({_SECONDS})s", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a film: a frame's number, or seconds after its first frame."""

    number: int | None = None
    seconds: Fraction | None = None

    def reached(self, number: int, seconds: Fraction) -> bool:
        """Whether a frame lies at the place or after it."""
        if self.number is not None:
            return number >= self.number
        return self.seconds is not None and seconds >= self.seconds


@dataclass(frozen=True, slots=True)
class Range:
    """The frames from `start` on and before `stop`; None for the film's own."""

    start: Place | None = None
    stop: Place | None = None

    @property
    def whole(self) -> bool:
        """True for all frames."""
        return self.start is None and self.stop is None

    def begun(self, number: int, seconds: Fraction) -> bool:
        """Whether a frame is at the start or after it."""
        return self.start is None or self.start.reached(number, seconds)

    def ended(self, number: int, seconds: Fraction) -> bool:
        """Whether a frame is beyond the range."""
        return self.stop is not None and self.stop.reached(number, seconds)


def parse_range(text: str) -> Range:
    """`A-B`, each a frame's number, a time (1:02:03.5 or 90s), or nothing; UsageError if neither."""
    start, dash, stop = text.partition("-")
    if not dash or not (start.strip() or stop.strip()):
        raise _no_range(text)
    return Range(_place(start, text), _place(stop, text))


def _place(word: str, text: str) -> Place | None:
    word = word.strip()
    if not word:
        return None
    if re.fullmatch(_NUMBER, word, re.ASCII):
        return Place(number=int(word))
    match = _TIME.fullmatch(word)
    if match is None:
        raise _no_range(text)
    hours, minutes, rest, seconds = match.groups()
    if seconds is not None:
        return Place(seconds=Fraction(seconds))
    return Place(seconds=int(hours or 0) * 3600 + int(minutes) * 60 + Fraction(rest))


def _no_range(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is not a range: write A-B with frame numbers (100-200) or times (1:30-2:00, 5s-)"
    )


class FilmSource:
    """Iterates, once, over the frames of a run."""

    def __init__(
        self, frames: Iterable[Frame], info: VideoInfo, range_: Range, cuts: Cuts, skip: int = 0
    ) -> None:
        """`skip`: how many of the run's first frames are not wanted again."""
        self._first = 0
        self._frames = frames
        self._info = info
        self._range = range_
        self._cuts = cuts
        self._skip = skip

    def begin_at(self, number: int) -> None:
        """Say that the frames given begin with that number; the run is the whole film."""
        assert self._range.whole
        self._first = number

    def __iter__(self) -> Iterator[Frame]:
        marked = self._cuts.mark(self._chosen(), self._info.pixel)
        for number, frame in enumerate(marked, self._first):
            if number >= self._skip:
                yield frame

    def _chosen(self) -> Iterator[tuple[int, Frame]]:
        """The frames of the range, each with its number in the file."""
        start: int | None = None
        chosen = 0
        for number, frame in enumerate(self._frames, self._first):
            start = frame.pts if start is None else start
            seconds = (frame.pts - start) * self._info.time_base
            if self._range.ended(number, seconds):
                break
            if self._range.begun(number, seconds):
                chosen += 1
                yield number, frame
        if not chosen and not self._range.whole:
            raise UsageError(f"{self._info.path}: no frame lies in the range")
