"""What a worker does with an item: it reads its part of the film, restores it, and encodes it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt import __version__
from vr_trt.errors import DamagedInputError
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.film import Film, Resume
from vr_trt.runtime.film_run import Work
from vr_trt.runtime.film_scan import FrameMarks, frame_check
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.journal import Segment, segment_name
from vr_trt.runtime.pipeline import Pipeline, Progress, Timing
from vr_trt.runtime.publish import output_errors
from vr_trt.runtime.reader import Reader, SeekMissed, can_seek
from vr_trt.runtime.segments import SegmentSink
from vr_trt.runtime.stage_trace import StageTime, tracing
from vr_trt.runtime.work_items import Item


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemTask:
    """An item as it is given to a worker."""

    item: Item
    marks: FrameMarks  # of the frames that it reads

    @property
    def order(self) -> int:
        """The film's."""
        return self.item.first

    def __str__(self) -> str:
        return f"frames {self.item.first} to {self.item.end - 1}"


@dataclass(frozen=True, slots=True)
class SegmentMade:
    """A segment is on disk; `head`: digests of the frames before the item."""

    segment: Segment
    head: tuple[str, ...]
    data: bytes | None = None  # the file, where the disk is another machine's


@dataclass(frozen=True, slots=True)
class FramesMade:
    """How many frames of the item are done."""

    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemDone:
    """All segments were told before."""

    timing: Timing
    stages: dict[str, StageTime]


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a worker says of itself."""

    step_latents: int
    version: str
    engines: str  # what it runs on, in words


Tell = Callable[[SegmentMade | FramesMade], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """How to get networks, also after a failure, and what they run on, in words."""

    make_work: Callable[[], Work]
    engines: str


class _OtherFrames(Exception):
    """What was decoded is not what the scan found."""


class ItemWorker:
    """Restores items of one film with networks that stay open."""

    def __init__(
        self, opened: Opened, info: VideoInfo, spec: OutputSpec, folder: Path, ship: bool = False
    ) -> None:
        """`folder`: where segments go; `ship`: nobody else can read them there."""
        self._ship = ship
        self._opened = opened
        self._work = opened.make_work()
        self._info = info
        self._spec = spec
        self._folder = folder

    def about(self) -> About:
        """Opens the networks as far as that takes."""
        steps = self._work.step_latents()
        return About(step_latents=steps, version=__version__, engines=self._opened.engines)

    def run(self, task: ItemTask, tell: Tell) -> ItemDone:
        """Restore an item and tell of its segments. DamagedInputError if the film reads otherwise."""
        item = task.item
        if item.first_read and can_seek(self._info):
            try:
                return self._restore(item, task.marks, tell, seek=True)
            except (SeekMissed, _OtherFrames):  # from the film's start, then, as the scan was read
                self._work = self._opened.make_work()  # the other was cancelled
        try:
            return self._restore(item, task.marks, tell, seek=False)
        except _OtherFrames:
            raise DamagedInputError(
                f"{self._info.path}: {task} are not decoded alike every time: run with one "
                "worker, or repair the file"
            ) from None

    def _restore(self, item: Item, marks: FrameMarks, tell: Tell, seek: bool) -> ItemDone:
        start = marks.times[item.first_read - marks.first] if seek else None
        with tracing(None) as trace, Reader(self._info.path, self._info, start) as reader:
            source = _ItemSource(reader, item, marks)
            stage = _ItemStage(Film(self._work.make_shot, _entered(item), _joins(item)), item)
            log = _ItemLog(self._folder, item, stage, self._shipping(tell) if self._ship else tell)
            sink = _ItemSink(SegmentSink(self._spec, self._info, log), self._spec.path)

            told = 0

            def report(progress: Progress) -> None:
                nonlocal told
                if progress.frames != told:
                    told = progress.frames
                    tell(FramesMade(told))

            pipeline = Pipeline(source, stage, sink, cancel=self._work.cancel)
            timing = pipeline.run(report)
        assert log.frames == item.end - item.first, f"{log.frames} frames of {item}"
        return ItemDone(timing=timing, stages=trace.stages)

    def _shipping(self, tell: Tell) -> Tell:
        def ship(said: SegmentMade | FramesMade) -> None:
            assert isinstance(said, SegmentMade)
            path = self._folder / segment_name(said.segment.first)
            tell(replace(said, data=path.read_bytes()))
            path.unlink()

        return ship


class _ItemSource:
    """The frames that an item needs, those marked that begin a shot."""

    def __init__(self, reader: Reader, item: Item, marks: FrameMarks) -> None:
        self._reader = reader
        self._item = item
        self._marks = marks

    def __iter__(self) -> Iterator[Frame]:
        item, marks = self._item, self._marks
        number = item.first_read
        for frame in self._reader:
            if number == item.first_read and frame.pts < marks.times[number - marks.first]:
                continue  # read from the film's start
            if frame_check(frame) != marks.checks[number - marks.first]:
                raise _OtherFrames
            yield replace(frame, starts_shot=number in item.shots)
            number += 1
            if number == item.stop:
                return
        raise _OtherFrames  # the film ended earlier


class _ItemStage:
    """A film of which the frames up to the item's end are wanted."""

    def __init__(self, film: Film, item: Item) -> None:
        self._film = film
        self._left = item.end - item.first
        self._item = item

    @property
    def head(self) -> tuple[str, ...]:
        return self._film.head

    def push(self, frame: Frame) -> Iterator[Frame]:
        if self._left:
            yield from self._wanted(self._film.push(frame))

    def finish(self) -> Iterator[Frame]:
        if self._left:
            assert self._item.ends_shot, f"nothing was left to look ahead to: {self._item}"
            yield from self._wanted(self._film.finish())

    def _wanted(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self._left -= 1
            yield frame
            if not self._left:
                return


class _ItemLog:
    """Segments of an item: each is told when it is complete."""

    def __init__(self, folder: Path, item: Item, stage: _ItemStage, tell: Tell) -> None:
        self.frames = 0
        self._folder = folder
        self._item = item
        self._stage = stage
        self._tell = tell

    def segment_path(self, first: int) -> Path:
        return self._folder / segment_name(first)

    def add(self, segment: Segment) -> None:
        self.frames += segment.frames
        if segment.following is None:
            segment = replace(segment, following=self._item.following)
        self._tell(SegmentMade(segment, self._stage.head))


class _ItemSink:
    """The pipeline's sink: segments, and their errors in words."""

    def __init__(self, segments: SegmentSink, path: Path) -> None:
        self._segments = segments
        self._path = path

    def write(self, frame: Frame) -> None:
        with output_errors(self._path):
            self._segments.write(frame)

    def close(self) -> None:
        with output_errors(self._path):
            self._segments.finish()

    def abort(self) -> None:
        self._segments.discard()


def _joins(item: Item) -> frozenset[int]:
    return frozenset(join.frame for join in item.joins)


def _entered(item: Item) -> Resume:
    join = item.joins[0]
    return Resume(frame=join.frame, shot=join.shot, tail=(), entry=item.entry)
