"""Items given out, and their segments put into the journal as soon as they are proven right.

An item that begins with a shot is right by itself. One that begins inside a shot was warmed up, and
made the frames before it again: these must equal the last ones of the item before, for which its
segments wait. If they differ, the network looks back further than was thought, and the item is done
again from the shot's start, which is right for any network.
"""

from dataclasses import dataclass, field

from vr_trt.runtime.film_scan import FilmScan
from vr_trt.runtime.item_work import FramesMade, ItemDone, ItemTask, SegmentMade
from vr_trt.runtime.journal import Journal, Segment
from vr_trt.runtime.packet_file import store_segment
from vr_trt.runtime.schedule import Schedule
from vr_trt.runtime.stage_trace import StageTime
from vr_trt.runtime.work_items import Item


@dataclass(kw_only=True)
class Sums:
    """What all workers did together, in seconds."""

    read: float = 0.0
    restore: float = 0.0
    write: float = 0.0
    stages: dict[str, StageTime] = field(default_factory=dict)

    def add(self, done: ItemDone) -> None:
        """One more item."""
        self.read += done.timing.read
        self.restore += done.timing.restore
        self.write += done.timing.write
        for name, time in done.stages.items():
            total = self.stages.setdefault(name, StageTime())
            total.calls += time.calls
            total.seconds += time.seconds


@dataclass(kw_only=True)
class _Given:
    """What is known of an item that was given out."""

    task: ItemTask
    held: dict[int, SegmentMade] = field(default_factory=dict)  # by first frames; not proven
    proven: bool = False
    finished: bool = False
    exact: bool = False  # it is done from the shot's start
    refuted: bool = False  # what is being made is of no use
    made: int = 0  # frames, of which
    told: int = 0  # so many are in segments that are complete


class Joiner:
    """The items of one run."""

    def __init__(self, journal: Journal, schedule: Schedule, scan: FilmScan) -> None:
        self.sums = Sums()
        self.warnings: list[str] = []
        self._journal = journal
        self._schedule = schedule
        self._scan = scan
        self._given: dict[int, _Given] = {}  # by the items' first frames
        kept = (*journal.segments, *journal.ahead.values())
        self._there = {segment.first for segment in kept}
        self._tails = {s.following.frame: s.tail for s in kept if s.following}

    @property
    def frames(self) -> int:
        """How many are done, whether they are in the journal or not."""
        frames = self._journal.kept
        for given in self._given.values():
            frames += sum(made.segment.frames for made in given.held.values())
            frames += max(0, given.made - given.told)
        return frames

    def give(self, item: Item) -> None:
        """Queue an item."""
        self._given[item.first] = _Given(task=self._task(item))
        self._schedule.add(self._given[item.first].task)

    def take(self, task: ItemTask, said: object) -> None:
        """Take in what a worker said of an item."""
        given = self._given[task.item.first]
        if isinstance(said, FramesMade):
            given.made = said.frames
        elif isinstance(said, SegmentMade) and not given.refuted:
            given.told += said.segment.frames
            if said.data is not None:
                store_segment(self._journal.segment_path(said.segment.first), said.data)
            given.held[said.segment.first] = said
            self._prove(given)
        elif isinstance(said, ItemDone):
            given.finished, given.made, given.told = True, 0, 0
            self.sums.add(said)
            if given.refuted:
                self._again(given)

    def _prove(self, given: _Given) -> None:
        """Put the held segments into the journal if they are proven by now."""
        if not given.held:
            return
        if given.task.item.checked and not given.proven:
            tail = self._tails.get(given.task.item.first)
            if tail is None:
                return  # the item before is not there yet
            if not _agree(next(iter(given.held.values())).head, tail):
                if not given.exact:
                    given.held.clear()
                    given.refuted = True
                    if given.finished:
                        self._again(given)
                    return
                self.warnings.append(
                    f"{given.task}: two workers differ in their last bits: they are not alike"
                )
        given.proven = True
        held, given.held = given.held, {}
        for made in held.values():
            self._add(made.segment)

    def _add(self, segment: Segment) -> None:
        if segment.first not in self._there:  # an item of a worker that died is done again
            self._there.add(segment.first)
            self._journal.add(segment)
        if segment.following is not None:
            self._tails[segment.following.frame] = segment.tail
            if following := self._given.get(segment.following.frame):
                self._prove(following)

    def _again(self, given: _Given) -> None:
        """From the shot's start."""
        given.task = self._task(given.task.item.from_shot_start())
        given.exact, given.refuted, given.finished = True, False, False
        self._schedule.add(given.task)

    def _task(self, item: Item) -> ItemTask:
        return ItemTask(item=item, marks=self._scan.marks.part(item.first_read, item.stop))


def _agree(head: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    """Whether digests of the frames before a place, made by two workers, are the same."""
    count = min(len(head), len(tail))
    return head[-count:] == tail[-count:]
