"""The three threads: order, overlap, the first error, an interruption, and no thread left."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep
from typing import Any

import pytest
from tests.pictures import flat_frame

from vr_trt.errors import DamagedInputError, InterruptedRun
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.pipeline import QUEUE_FRAMES, Pipeline, Progress

Hook = Callable[[int], None]


def nothing(index: int) -> None:
    """The hook of a thread that does its work without trouble."""


class Source:
    """`count` frames; the hook is called before each."""

    def __init__(self, count: int, hook: Hook = nothing) -> None:
        self.count, self.hook, self.read = count, hook, 0

    def __iter__(self) -> Iterator[Frame]:
        for i in range(self.count):
            self.hook(i)
            self.read += 1
            yield flat_frame(i % 256, pts=i)


class PairStage:
    """Gives frames back two at a time, as the real stage gives them in chunks."""

    def __init__(self, hook: Hook = nothing) -> None:
        self.hook, self.held = hook, list[Frame]()

    def push(self, frame: Frame) -> Iterator[Frame]:
        self.hook(frame.pts)
        self.held.append(frame)
        if len(self.held) == 2:
            yield from self.finish()

    def finish(self) -> Iterator[Frame]:
        held, self.held = self.held, []
        yield from held


class Sink:
    """Remembers what it was given and how it ended."""

    def __init__(self, hook: Hook = nothing) -> None:
        self.hook, self.pts, self.ended = hook, list[int](), list[str]()

    def write(self, frame: Frame) -> None:
        self.hook(frame.pts)
        self.pts.append(frame.pts)

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vr-trt")]


def test_every_frame_in_order_and_the_progress_of_it() -> None:
    sink, seen = Sink(), list[Progress]()
    timing = Pipeline(Source(101), PairStage(), sink, total=101).run(seen.append)
    assert sink.pts == list(range(101)) and sink.ended == ["closed"]
    assert timing.frames == seen[-1].frames == 101 and seen[-1].eta == 0
    assert our_threads() == []


def test_the_threads_work_at_the_same_time() -> None:
    def slow(index: int) -> None:
        sleep(0.005)

    timing = Pipeline(Source(60, slow), PairStage(slow), Sink(slow)).run()
    assert timing.overlap > 2
    assert timing.seconds < 0.6 * (timing.read + timing.restore + timing.write)


def test_the_reader_is_held_back_by_a_slow_writer() -> None:
    source = Source(200)
    ahead = []

    def lag(index: int) -> None:
        sleep(0.001)
        ahead.append(source.read - index)

    Pipeline(source, PairStage(), Sink(lag)).run()
    assert max(ahead) <= 2 * QUEUE_FRAMES + 5


@pytest.mark.parametrize("where", ["reader", "stage", "writer"])
def test_the_first_error_stops_all_within_a_second(where: str) -> None:
    def fail(index: int) -> None:
        if index == 20:
            raise DamagedInputError(f"{where} failed")

    hooks = {name: fail if name == where else nothing for name in ("reader", "stage", "writer")}
    sink = Sink(hooks["writer"])
    start = perf_counter()
    with pytest.raises(DamagedInputError, match=f"{where} failed"):
        Pipeline(Source(10**9, hooks["reader"]), PairStage(hooks["stage"]), sink).run()
    assert perf_counter() - start < 1
    assert sink.ended == ["aborted"] and our_threads() == []


def test_an_error_ends_a_long_call_of_the_stage() -> None:
    """`cancel` is what makes the call in progress return."""
    cancelled = threading.Event()

    def long_call(index: int) -> None:
        assert cancelled.wait(20), "nobody cancelled"

    def fail(index: int) -> None:
        if index == 3:
            raise OSError("disk gone")

    start = perf_counter()
    with pytest.raises(OSError, match="disk gone"):
        Pipeline(Source(10, fail), PairStage(long_call), Sink(), cancel=cancelled.set).run()
    assert perf_counter() - start < 1 and our_threads() == []


def test_ctrl_c_stops_all_and_publishes_nothing() -> None:
    def interrupt(index: int) -> None:
        if index == 10:
            signal.raise_signal(signal.SIGINT)

    sink = Sink(interrupt)
    with pytest.raises(InterruptedRun):
        Pipeline(Source(10**9), PairStage(), sink).run()
    assert sink.ended == ["aborted"] and our_threads() == []


def test_ctrl_c_while_the_threads_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits by now for the others, which never come."""
    submit = ThreadPoolExecutor.submit

    def interrupted(pool: ThreadPoolExecutor, *job: Any) -> Any:
        if our_threads():
            raise KeyboardInterrupt
        return submit(pool, *job)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    sink = Sink()
    with pytest.raises(InterruptedRun):
        Pipeline(Source(10**9), PairStage(), sink).run()
    assert sink.ended == ["aborted"] and our_threads() == []


def test_no_frame_at_all_is_a_damaged_input() -> None:
    sink = Sink()
    with pytest.raises(DamagedInputError, match="no frame"):
        Pipeline(Source(0), PairStage(), sink).run()
    assert sink.ended == ["aborted"]


def test_an_error_of_the_progress_callback_is_the_callers() -> None:
    def broken(progress: Progress) -> None:
        raise ZeroDivisionError

    sink = Sink()
    with pytest.raises(ZeroDivisionError):
        Pipeline(Source(10**9), PairStage(), sink).run(broken)
    assert sink.ended == ["aborted"] and our_threads() == []


def test_eta() -> None:
    assert Progress(frames=10, total=30, seconds=5.0).eta == 10
    assert Progress(frames=40, total=30, seconds=5.0).eta == 0
    assert Progress(frames=10, total=None, seconds=5.0).eta is None
    assert Progress(frames=0, total=30, seconds=0.0).eta is None
