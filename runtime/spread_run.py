"""One file restored by several workers: its items given out, their segments put in order."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter

from vr_trt import __version__
from vr_trt.engines.profiles import Profile
from vr_trt.errors import DamagedInputError, InterruptedRun, UsageError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.entry import Entry
from vr_trt.runtime.film import Resume
from vr_trt.runtime.film_run import Done, FilmRun, OnProgress
from vr_trt.runtime.film_scan import FilmScan
from vr_trt.runtime.film_source import FilmSource
from vr_trt.runtime.frames import Join
from vr_trt.runtime.item_work import About, ItemTask
from vr_trt.runtime.joiner import Joiner
from vr_trt.runtime.journal import Journal
from vr_trt.runtime.pipeline import REPORT_SECONDS, Progress, Timing
from vr_trt.runtime.publish import check_target
from vr_trt.runtime.reader import Reader, SeekMissed
from vr_trt.runtime.schedule import Schedule
from vr_trt.runtime.work_items import Planner, Rules
from vr_trt.runtime.workers import Finished, Pool, Ready, Said
from vr_trt.runtime.writer import Writer


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """Who does the work, and whether shots may be shared among them."""

    open_pool: Callable[[Path], Pool]  # workers that write their segments into a folder
    profile: Profile
    engines: frozenset[str]  # what they may run on, in words: what was planned here
    alike: bool = True  # whether all round alike, so that a shot may be shared

    @property
    def line(self) -> str:
        """What they run on."""
        return " and ".join(sorted(self.engines))

    def check(self, about: About) -> None:
        """UsageError for a worker that would make other frames."""
        if about.version != __version__:
            raise UsageError(f"a worker has vr-trt {about.version}, this is {__version__}")
        if about.engines not in self.engines:
            raise UsageError(
                f"a worker would run on {about.engines}; here it is {' or '.join(self.engines)}: "
                "start on a machine like the workers', with the same engines"
            )


class SpreadRun(FilmRun):
    """One run of one file, over the workers of a pool."""

    def spread(self, crew: Crew, on_progress: OnProgress) -> Done:
        """Restore the file. After InterruptedRun there is a journal if a segment was complete."""
        if self._finished_before():
            return self._nothing_to_do()
        check_target(self._spec.path, self._info.path, self._spec.overwrite)
        journal = self._open_journal()
        with ExitStack() as stack:
            stack.callback(journal.close, keep=True)
            writer = Writer(self._spec, self._info, journal)
            stack.callback(writer.abort)  # of no effect once it is closed
            if journal.complete:
                writer.close()
                return Done(
                    frames=journal.frames,
                    timing=Timing(),
                    stages={},
                    warnings=(*self._info.guesses, *writer.warnings),
                )
            try:
                pool = crew.open_pool(journal.folder)
                stack.callback(pool.close)
                return self._over(pool, crew, (journal, writer), on_progress)
            except (InterruptedRun, KeyboardInterrupt) as stop:
                said = str(stop) or "stopped by the user"
                if journal.kept:
                    frames = counted(journal.kept, "frame is", "frames are")
                    said += f"; {frames} kept, --resume goes on"
                raise InterruptedRun(said) from None

    def _over(
        self, pool: Pool, crew: Crew, output: tuple[Journal, Writer], on_progress: OnProgress
    ) -> Done:
        journal, writer = output
        meter = _Meter(before=journal.kept, on_progress=on_progress)
        schedule = Schedule(pool)
        about = _first_word(schedule, crew)
        rules = Rules(profile=crew.profile, step_latents=about.step_latents, stretches=crew.alike)
        for seek in (True, False):
            try:
                with self._scanned(journal, seek) as (scan, reader):
                    joiner = Joiner(journal, schedule, scan)
                    planner = _planner(journal, rules)
                    self._restore(_Desk(schedule, scan, joiner, planner), crew, meter)
                    notes = (*self._info.guesses, *reader.warnings)
                break
            except SeekMissed:
                continue
        writer.close()
        meter.show(journal.frames, journal.frames)
        warnings = (*notes, *schedule.warnings, *joiner.warnings, *writer.warnings)
        sums = joiner.sums
        timing = Timing(
            frames=journal.frames - meter.before,
            seconds=meter.seconds,
            read=sums.read,
            restore=sums.restore,
            write=sums.write,
        )
        return Done(frames=journal.frames, timing=timing, stages=sums.stages, warnings=warnings)

    def _restore(self, desk: "_Desk", crew: Crew, meter: "_Meter") -> None:
        """Until every segment is in the journal."""
        while not (desk.ended and desk.schedule.idle):
            desk.plan()
            for task, message in desk.schedule.step(REPORT_SECONDS):
                if isinstance(message, Said | Finished):
                    assert isinstance(task, ItemTask)
                    said = message.message if isinstance(message, Said) else message.result
                    desk.joiner.take(task, said)
                elif isinstance(message, Ready):
                    crew.check(message.about)
            meter.show(desk.joiner.frames, desk.scan.known if desk.ended else self._total)
            if self._stop_at is not None and datetime.now() >= self._stop_at:
                raise InterruptedRun(f"stopped at {self._stop_at:%H:%M}")
        if not desk.scan.known:
            raise DamagedInputError("the input has no frame that can be decoded: check the file")

    @contextmanager
    def _scanned(self, journal: Journal, seek: bool) -> Iterator[tuple[FilmScan, Reader]]:
        """The film being read, if possible from a key frame near the first missing segment."""
        anchor = None
        if journal.segments and seek:
            last = journal.segments[-1]
            assert last.following is not None, "a complete journal has nothing left to do"
            frame, shot = last.following.frame, last.following.shot
            resume = Resume(frame=frame, shot=shot, tail=last.tail, entry=Entry())
            anchor = self._anchor(journal, resume)
        start = anchor.start_pts if anchor else None
        with Reader(self._info.path, self._info, start) as reader:
            source = FilmSource(reader, self._info, self._range, self._cuts)
            if anchor:
                source.begin_at(anchor.first)
            scan = FilmScan(source, anchor.first if anchor else 0)
            try:
                yield scan, reader
            finally:
                scan.close()


class _Desk:
    """Where the film is cut into items while it is read, and they are given out."""

    def __init__(
        self, schedule: Schedule, scan: FilmScan, joiner: Joiner, planner: Planner
    ) -> None:
        self.schedule = schedule
        self.scan = scan
        self.joiner = joiner
        self.ended = False  # every item was given out
        self._planner = planner
        self._next = scan.marks.first

    def plan(self) -> None:
        """Give out the items that are known by now. Raises what stopped the reading."""
        if self.ended:
            return
        self.ended = self.scan.done  # asked before what it found is looked at
        for number in range(self._next, self.scan.known):
            self._planner.see(number, self.scan.starts_shot(number))
            self._next = number + 1
        if self.ended:
            self._planner.end()
        for item in self._planner.items():
            self.joiner.give(item)


class _Meter:
    """How far the run is; never back, though a worker's death may lose frames."""

    def __init__(self, before: int, on_progress: OnProgress) -> None:
        self.before = before
        self._on_progress = on_progress
        self._start = perf_counter()
        self._frames = before

    @property
    def seconds(self) -> float:
        return perf_counter() - self._start

    def show(self, frames: int, total: int | None) -> None:
        self._frames = max(self._frames, frames)
        progress = Progress(
            frames=self._frames, total=total, seconds=self.seconds, before=self.before
        )
        self._on_progress(progress)


def _planner(journal: Journal, rules: Rules) -> Planner:
    following = journal.segments[-1].following if journal.segments else None
    return Planner(rules=rules, done=frozenset(journal.ahead), start=following or Join(0, 0))


def _first_word(schedule: Schedule, crew: Crew) -> About:
    """What the first worker that is ready says of itself."""
    while True:
        for _, message in schedule.step(REPORT_SECONDS):
            if isinstance(message, Ready):
                about = message.about
                assert isinstance(about, About)
                crew.check(about)
                return about
