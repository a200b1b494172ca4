"""The journal of a run: what decides its result, and which segments are complete.

It is a folder beside the output, `.NAME.resume`, with the segments and `journal.jsonl`: the first
line says what the run is made from, each other line is one segment. A line is written once its
segment is on disk under its name, so the lines tell the truth whatever is killed at whatever moment;
half a line at the end does not count. Workers complete segments out of order: those after a gap are
kept as well.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import Join
from vr_trt.runtime.publish import followed, sync

FORMAT = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One line: a complete segment of the output."""

    first: int  # its first frame, counted from the run's
    frames: int
    start_pts: int
    end_pts: int  # where its last frame ends
    depth: int  # by how many pictures decoding is ahead of showing
    tail: tuple[str, ...]  # digests of its last frames, oldest first
    bytes: int
    following: Join | None  # where the next one begins; None: it is the last


class Journal:
    """The journal of the run that writes `output`; holds its lock until `close`."""

    def __init__(self, output: Path, facts: Mapping[str, Any]) -> None:
        """`facts`: all that the result depends on, by names that a user understands."""
        self.folder = folder_of(output)
        self.segments: list[Segment] = []  # from the first on, without a gap
        self.ahead: dict[int, Segment] = {}  # after a gap, by their first frames
        self._output = output
        self._facts = json.loads(json.dumps(dict(facts)))
        self._path = self.folder / "journal.jsonl"
        self.folder.mkdir(exist_ok=True)
        self._lock: int | None = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(f"{output} is being written by another run; wait for it") from None

    @property
    def complete(self) -> bool:
        """True if every segment is there."""
        return _is_complete(self.segments)

    @property
    def frames(self) -> int:
        """Frames that are done."""
        return sum(segment.frames for segment in self.segments)

    @property
    def kept(self) -> int:
        """Frames that are done, those after a gap counted."""
        return self.frames + sum(segment.frames for segment in self.ahead.values())

    def begin(self) -> None:
        """Begin a new run and forget any other. Raises OSError."""
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        self.segments, self.ahead = [], {}
        with self._path.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"format": FORMAT, **self._facts}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self.folder)

    def resume(self) -> None:
        """Take up the run that was stopped; begin one if none was, or if it completed no segment.

        UsageError says which fact differs, if one does.
        """
        lines = self._read_lines()
        if len(lines) < 2:
            self.begin()
            return
        self._check(lines[0])
        try:
            self.segments, self.ahead = _in_order(map(_segment, lines[1:]))
        except ValueError:
            raise self._damaged() from None
        kept = set()
        for segment in (*self.segments, *self.ahead.values()):
            path = self.segment_path(segment.first)
            if not path.is_file() or path.stat().st_size != segment.bytes:
                raise UsageError(f"{path} is missing or damaged: start over with --overwrite")
            kept.add(path)
        for path in self.folder.iterdir():
            if path not in kept and path.name not in ("lock", self._path.name):
                path.unlink()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if self._path.read_text(encoding="utf-8") != text:  # half a line at its end
            self._replace(text)

    def forget_ahead(self) -> None:
        """Drop the segments after a gap: a run of one worker continues at the gap."""
        if self.ahead:
            self.ahead = {}
            head = json.dumps({"format": FORMAT, **self._facts}) + "\n"
            self._replace(head + "".join(map(_line, self.segments)))

    def segment_path(self, first: int) -> Path:
        """Where the segment lies that begins with frame `first`."""
        return self.folder / segment_name(first)

    def add(self, segment: Segment) -> None:
        """Note that a segment is complete, be it the next one or one ahead. Raises OSError."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(segment))
            file.flush()
            os.fsync(file.fileno())
        self.segments, self.ahead = _in_order((*self.segments, *self.ahead.values(), segment))

    def close(self, keep: bool) -> None:
        """Give the lock back; with `keep` the journal stays for --resume, if it lists a segment.

        Does nothing the second time.
        """
        if self._lock is None:
            return
        if not keep or not (self.segments or self.ahead):
            self._path.unlink(missing_ok=True)  # first: segments without it are no run
            shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Give the lock back and leave everything as it is; safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _replace(self, text: str) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        sync(fresh)
        fresh.replace(self._path)

    def _read_lines(self) -> list[dict[str, Any]]:
        try:
            return _whole_lines(self._path)
        except FileNotFoundError:
            return []
        except ValueError:
            raise self._damaged() from None

    def _damaged(self) -> UsageError:
        return UsageError(f"{self._path} is damaged: start over with --overwrite")

    def _check(self, before: dict[str, Any]) -> None:
        now = {"format": FORMAT, **self._facts}
        for name in dict.fromkeys((*before, *now)):
            if before.get(name) != now.get(name):
                raise UsageError(
                    f"{self._output}: the stopped run had {name} {before.get(name)}, this one has "
                    f"{now.get(name)}: ask for the same to resume, or start over with --overwrite"
                )


def segment_name(first: int) -> str:
    """Name of the file of the segment that begins with frame `first`."""
    return f"{first:08}.segment"


def folder_of(output: Path) -> Path:
    """Where the journal of an output lies: beside the file itself, whichever link leads there."""
    file = followed(output)
    return file.with_name(f".{file.name}.resume")


def stopped_run(output: Path) -> Literal["begun", "complete"] | None:
    """Whether a stopped run of `output` is kept; "complete" if only the joining is missing."""
    try:
        lines = _whole_lines(folder_of(output) / "journal.jsonl")
        if len(lines) < 2:
            return None  # no segment was complete: nothing is lost by starting over
        segments, _ = _in_order(map(_segment, lines[1:]))
    except OSError:
        return None
    except ValueError:
        return "begun"  # damaged, or of another version: taking it up will say so
    return "complete" if _is_complete(segments) else "begun"


def stopped_facts(output: Path) -> dict[str, Any]:
    """The facts of the stopped run of `output`; none if there is no such run."""
    try:
        lines = _whole_lines(folder_of(output) / "journal.jsonl")
    except (OSError, ValueError):
        return {}
    return lines[0] if len(lines) > 1 else {}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Raises OSError, and ValueError where a line is damaged."""
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("a line is no object")
    return lines


def _in_order(segments: Iterable[Segment]) -> tuple[list[Segment], dict[int, Segment]]:
    """Those that follow each other from the first frame on, and the rest."""
    rest = {segment.first: segment for segment in segments}
    chain: list[Segment] = []
    following: int | None = 0
    while following is not None and following in rest:
        chain.append(rest.pop(following))
        after = chain[-1].following
        following = after.frame if after else None
    return chain, rest


def _is_complete(segments: list[Segment]) -> bool:
    return bool(segments) and segments[-1].following is None


def _line(segment: Segment) -> str:
    return json.dumps(asdict(segment)) + "\n"


def _segment(line: dict[str, Any]) -> Segment:
    """The segment of a journal's line; ValueError where it is none."""
    try:
        following = line["following"]
        join = Join(**following) if following else None
        segment = Segment(**{**line, "tail": tuple(line["tail"]), "following": join})
    except (KeyError, TypeError) as error:
        raise ValueError(f"no segment: {error}") from None
    numbers = (segment.first, segment.frames, segment.start_pts, segment.end_pts)
    places = (join.frame, join.shot) if join else ()
    if any(type(n) is not int for n in (*numbers, *places, segment.depth, segment.bytes)):
        raise ValueError("no segment: a number is none")
    if segment.frames < 1 or segment.depth < 0 or segment.start_pts >= segment.end_pts:
        raise ValueError("no segment: it has no frames")
    if join and join.frame != segment.first + segment.frames:
        raise ValueError("no segment: the next one does not follow it")
    return segment
