"""Reading, restoring and writing, each in a thread of its own, with bounded queues between them.

The calling thread only watches: it reports progress and, when something fails or the user presses
Ctrl-C, stops all three, waits for them, and raises the first error. The output is published only
after everything else has gone well.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from vr_trt.errors import DamagedInputError, InterruptedRun
from vr_trt.runtime.frame_queue import FrameQueue
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.stage_trace import stage_call

QUEUE_FRAMES = 8  # in each queue: bridges a slow moment, and is little beside one VAE step
REPORT_SECONDS = 0.1


class Stage(Protocol):
    """What restores: see vr_trt.runtime.shot."""

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame, yield finished ones."""

    def finish(self) -> Iterator[Frame]:
        """Yield the rest."""


class Sink(Protocol):
    """Where frames go: see vr_trt.runtime.writer."""

    def write(self, frame: Frame) -> None:
        """Take the next frame."""

    def close(self) -> None:
        """Finish and publish."""

    def abort(self) -> None:
        """Leave nothing behind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run has come."""

    frames: int
    total: int | None  # an estimate, where the file tells one
    seconds: float
    before: int = 0  # how many of the frames a stopped run had made

    @property
    def fps(self) -> float:
        """This run's frames per second, since its start."""
        return (self.frames - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go; None where the number of frames is not known."""
        if self.total is None or not self.fps:
            return None
        return max(0, self.total - self.frames) / self.fps


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What the threads did: frames written, seconds in all, and each thread's own work."""

    frames: int = 0
    seconds: float = 0.0
    read: float = 0.0
    restore: float = 0.0
    write: float = 0.0

    @property
    def overlap(self) -> float:
        """How much work went on at the same time: the busy seconds by the seconds in all."""
        return (self.read + self.restore + self.write) / self.seconds if self.seconds else 0.0

    @property
    def by_slowest(self) -> float:
        """Seconds in all by the busiest thread's; at 1 it hides the others entirely."""
        slowest = max(self.read, self.restore, self.write)
        return self.seconds / slowest if slowest else 0.0


class _Clock:
    """Seconds of one thread's own work, without its waits for the others."""

    def __init__(self, name: str = "") -> None:
        """`name`: of each call in a trace; empty leaves it out."""
        self.busy = 0.0
        self._name = name

    @contextmanager
    def one(self) -> Iterator[None]:
        """Add the time that the block takes."""
        start = perf_counter()
        try:
            with stage_call(self._name) if self._name else nullcontext():
                yield
        finally:
            self.busy += perf_counter() - start

    def each(self, items: Iterable[Frame]) -> Iterator[Frame]:
        """`items`, counting the time that making each one takes."""
        iterator = iter(items)
        while True:
            with self.one():
                item = next(iterator, None)
            if item is None:
                return
            yield item


class Pipeline:
    """One run of `source` through `stage` into `sink`."""

    def __init__(
        self,
        source: Iterable[Frame],
        stage: Stage,
        sink: Sink,
        *,
        cancel: Callable[[], None] = lambda: None,
        total: int | None = None,
        before: int = 0,
    ) -> None:
        """`cancel` makes the stage's call in progress end early, from any thread."""
        self._source = source
        self._stage = stage
        self._sink = sink
        self._cancel = cancel
        self._total = total
        self._before = before
        self._incoming = FrameQueue(QUEUE_FRAMES, "read, not restored")
        self._outgoing = FrameQueue(QUEUE_FRAMES, "restored, not written")
        self._clocks = _Clock("read"), _Clock(), _Clock("write")
        self._written = 0
        self._published = False

    def run(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> Timing:
        """Run to the end. The first error of any thread is raised; InterruptedRun for Ctrl-C."""
        start = perf_counter()
        jobs: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=3, thread_name_prefix="vr-trt") as threads:
            try:
                for job in (self._read, self._restore, self._write):
                    jobs.append(threads.submit(copy_context().run, job))
                self._watch(jobs, on_progress, start)
            except KeyboardInterrupt:
                raise InterruptedRun("stopped by the user") from None
            finally:
                if not self._published:
                    self._stop(jobs)
        seconds = perf_counter() - start
        on_progress(self._progress(self._before + self._written, seconds))
        read, restore, write = (clock.busy for clock in self._clocks)
        return Timing(
            frames=self._written, seconds=seconds, read=read, restore=restore, write=write
        )

    def _watch(
        self, jobs: list[Future[None]], on_progress: Callable[[Progress], None], start: float
    ) -> None:
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=REPORT_SECONDS, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
            seconds = perf_counter() - start
            on_progress(self._progress(self._total, seconds))

    def _progress(self, total: int | None, seconds: float) -> Progress:
        frames = self._before + self._written
        return Progress(frames=frames, total=total, seconds=seconds, before=self._before)

    def _stop(self, jobs: list[Future[None]]) -> None:
        self._incoming.stop()
        self._outgoing.stop()
        self._cancel()
        wait(jobs)
        if not self._published:  # before the stop reached it
            self._sink.abort()

    def _read(self) -> None:
        for frame in self._clocks[0].each(self._source):
            self._incoming.put(frame)
        self._incoming.close()

    def _restore(self) -> None:
        taken = 0
        for frame in self._incoming:
            taken += 1
            self._hand_on(self._stage.push(frame))
        if not taken:
            raise DamagedInputError("the input has no frame that can be decoded: check the file")
        self._hand_on(self._stage.finish())
        self._outgoing.close()

    def _hand_on(self, frames: Iterator[Frame]) -> None:
        for frame in self._clocks[1].each(frames):
            self._outgoing.put(frame)

    def _write(self) -> None:
        clock = self._clocks[2]
        for frame in self._outgoing:
            with clock.one():
                self._sink.write(frame)
            self._written += 1
        with clock.one():
            self._sink.close()
        self._published = True
