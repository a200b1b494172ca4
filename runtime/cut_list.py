"""Lists of cuts: found in a film, kept as text, and marked on the frames of a run."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.reader import Reader
from vr_trt.runtime.scene_cuts import mark_cuts

_HEADER = "# frame at which a shot begins, seconds from the first frame\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """The first frame of a shot."""

    frame: int  # counted from 0, the first frame of the file
    seconds: float  # after the first frame


def find_cuts(reader: Reader) -> Iterator[Cut]:
    """The hard cuts of a file, as they are found."""
    first: int | None = None
    for number, frame in enumerate(mark_cuts(reader, reader.info.pixel)):
        first = frame.pts if first is None else first
        if frame.starts_shot:
            yield Cut(number, float((frame.pts - first) * reader.info.time_base))


def write_cut_list(path: Path, cuts: Iterable[Cut]) -> None:
    """Write one line a cut; read_cut_list reads it back."""
    lines = [f"{cut.frame}\t{cut.seconds:.3f}\n" for cut in cuts]
    path.write_text(_HEADER + "".join(lines), encoding="utf-8")


def read_cut_list(path: Path) -> frozenset[int]:
    """The frame numbers of a list: the first column; lines that begin with # say nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"the list of cuts in {path} cannot be read: {reason}") from None
    frames = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not re.fullmatch(r"\d{1,18}", words[0], re.ASCII):
            raise UsageError(
                f"{path}, line {number}: {words[0]!r} is not a frame number; make a list with "
                "`vr-trt cuts INPUT -o FILE`"
            )
        frames.add(int(words[0]))
    return frozenset(frames)


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where shots begin in a run: found on the way, nowhere, or listed."""

    mode: str  # "auto", "none" or "list"
    listed: frozenset[int] = frozenset()

    def mark(self, frames: Iterable[tuple[int, Frame]], pixel: PixelFormat) -> Iterator[Frame]:
        """`frames`, each with its number in the file; those marked that begin a shot."""
        if self.mode == "auto":
            return mark_cuts((frame for _, frame in frames), pixel)
        return (
            replace(frame, starts_shot=True) if number in self.listed else frame
            for number, frame in frames
        )


def cuts_from(
    choice: str,  # auto, none, or the name of a list
) -> Cuts:
    """The cuts of a run. Raises UsageError where the list cannot be read."""
    if choice in ("auto", "none"):
        return Cuts(choice)
    return Cuts("list", read_cut_list(Path(choice)))
