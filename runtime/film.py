"""A whole film, shot by shot, with the places marked at which the output may be cut into segments.

Where a segment begins is a function of the shots and of where the segment before began, so a run
that was stopped and taken up, or spread over workers, cuts its output as one that was not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from vr_trt.runtime.entry import Entry
from vr_trt.runtime.frame_digest import frame_digest
from vr_trt.runtime.frames import Frame, Join
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.vae_stream import START_FRAMES

SEGMENT_FRAMES = 120  # after which a segment ends where the VAE's next chunk begins
SHOT_SEGMENT_FRAMES = 48  # after which it ends where the shot does; at once if it began in the shot


class EntryMissed(Exception):
    """Frames that were made a second time differ: the shot must be done again from its start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Where a stopped run continues; frames are counted from the run's first."""

    frame: int  # the first that is missing
    shot: int  # the first of the shot that it lies in
    tail: tuple[str, ...]  # digests of the last frames before it, oldest first
    entry: Entry  # into that shot

    @property
    def first_read(self) -> int:
        """The first frame that must be read again."""
        return self.shot + self.entry.first_read


def begins_segment(number: int, shot: int, before: Join, step_frames: int) -> bool:
    """Whether a segment begins with frame `number` of the shot that began with `shot`.

    `before`: where the last segment began. `step_frames`: of a VAE step, between which alone a shot
    can be entered.
    """
    length, place = number - before.frame, number - shot
    if place == 0:
        return length >= SHOT_SEGMENT_FRAMES or before.frame > before.shot
    return (
        length >= SEGMENT_FRAMES
        and place >= START_FRAMES
        and (place - START_FRAMES) % step_frames == 0
    )


class Film:
    """Takes the frames of a film, marked where a shot begins; gives as many restored frames."""

    def __init__(
        self,
        make_shot: Callable[[Entry], Shot],
        resume: Resume | None = None,
        joins: frozenset[int] | None = None,
    ) -> None:
        """Frames are expected from the first of the run, or from `resume.first_read`, on.

        `joins`: where segments begin, if that has been decided already.
        """
        self._make_shot = make_shot
        self._shot: Shot | None = None
        self._resume = resume
        self._again: list[str] = []  # digests of frames that were made before
        self._joins = joins
        self._next, self._shot_start = 0, 0  # numbers of frames
        self._segment = Join(0, 0)
        self._entry = Entry()  # into the next shot
        if resume is not None:
            self._shot_start, self._segment = resume.shot, Join(resume.frame, resume.shot)
            self._next = resume.shot + resume.entry.first_given
            self._entry = resume.entry

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are finished by it. EntryMissed after a bad entry."""
        if frame.starts_shot and self._shot is not None:
            yield from self.finish()
        if self._shot is None:
            self._shot = self._make_shot(self._entry)
            self._entry = Entry()
        yield from self._numbered(self._shot, self._shot.push(frame))

    @property
    def head(self) -> tuple[str, ...]:
        """Digests of the frames before the first wanted one, which were made to be compared."""
        return tuple(self._again)

    def finish(self) -> Iterator[Frame]:
        """End the shot: yield the frames that are left."""
        if self._shot is None:
            return
        yield from self._numbered(self._shot, self._shot.finish())
        self._shot = None
        self._shot_start = self._next

    def _numbered(self, shot: Shot, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames, without those that are there already, and the joins marked."""
        for frame in frames:
            number = self._next
            self._next += 1
            if self._resume is not None and number < self._resume.frame:
                self._compare(frame, self._resume)
            elif self._begins_segment(shot, number):
                self._segment = Join(number, self._shot_start)
                yield replace(frame, join=self._segment)
            else:
                yield frame

    def _begins_segment(self, shot: Shot, number: int) -> bool:
        if self._joins is not None:
            return number in self._joins
        return number == self._segment.frame or begins_segment(
            number, self._shot_start, self._segment, shot.step_frames
        )

    def _compare(self, frame: Frame, resume: Resume) -> None:
        self._again.append(frame_digest(frame))
        if len(self._again) == len(resume.tail) and tuple(self._again) != resume.tail:
            raise EntryMissed
