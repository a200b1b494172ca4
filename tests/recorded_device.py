"""A device without a GPU: work waits in its stream until the host needs it, and order is checked.

Memory that nobody wrote reads as ones in every bit, which is NaN in every floating type. Using memory
that was given back, or never taken, fails the test; so does a result that was read too early, since
it is not there yet.

Every stream, and the host, has a vector clock; events carry one to whoever waits for them. Two uses
of the same memory of which one writes must be ordered by those clocks, whatever order the work is
done in here. Source: Mattern, "Virtual time and global states of distributed systems", 1988.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock

import numpy as np
from numpy.typing import NDArray
from tests.recorded_values import Values

from vr_trt.errors import MemoryBudgetError
from vr_trt.runtime.cuda import PageLocked

Work = Callable[[], None]
Clock = dict[int, int]  # stream -> how much of its work is known to be done
_FIRST, _APART = 0x1000, 1 << 32  # addresses of allocations


class RaceError(AssertionError):
    """Two uses of the same memory that nothing orders."""


@dataclass
class _Stream:
    work: deque[Work] = field(default_factory=deque)
    clock: Clock = field(default_factory=dict)
    asked: int = 0
    done: int = 0


@dataclass(frozen=True)
class _Mark:
    """What an event stands for: so much of a stream's work, and all that came before it."""

    stream: int
    position: int
    clock: Clock


@dataclass(frozen=True)
class _Operation:
    name: str
    work: Work
    reads: tuple[int, ...] = ()  # addresses
    writes: tuple[int, ...] = ()


@dataclass
class _Uses:
    """Who last used a piece of memory: stream and position."""

    write: tuple[int, int] | None = None
    reads: Clock = field(default_factory=dict)


class _Locked:
    def __init__(self, device: "RecordedDevice", address: int, size: int) -> None:
        self.address = address
        self.memory = np.full(size, 0xFF, np.uint8)
        self._device = device

    def array(self) -> NDArray[np.uint8]:
        self._device.host_uses(self.address)
        return self.memory


class RecordedDevice(Values):
    """A `vr_trt.runtime.cuda.Device` that records the names of what was asked of it.

    Reader, loop and writer may ask from threads of their own, one at a time; what one of them has
    waited for, all know to be done.
    """

    def __init__(self, room: int = 1 << 40) -> None:
        self.asked: list[str] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.lent: set[int] = set()  # addresses of memory that is somebody else's
        self.host_clock: Clock = {}
        self.locked: dict[int, _Locked] = {}
        self.events: dict[int, _Mark | None] = {}
        self.graphs: dict[int, list[_Operation]] = {}
        self.streams: dict[int, _Stream] = {}
        self._room = room
        self._next = _FIRST
        self._numbers = 100  # streams, events and graphs from here on; 1 is the default stream
        self._looping = False
        self._raced = False
        self._capturing: tuple[int, list[_Operation]] | None = None
        self._uses: dict[int, _Uses] = {}
        self._times: dict[int, float] = {}
        self._time = 0.0
        self._lock = RLock()

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Within it nothing may be taken or given back, and the host may wait for events only."""
        self._looping = True
        try:
            yield
        finally:
            self._looping = False

    def leaks(self) -> list[str]:
        """What was taken and not given back."""
        kinds: dict[str, Sized] = {
            "memory": self.memory.keys() - self.lent,
            "page-locked memory": self.locked,
            "event": self.events,
            "graph": self.graphs,
            "stream": self.streams,
        }
        return [f"{len(left)} x {kind}" for kind, left in kinds.items() if left]

    def stream(self) -> int:
        number = self._number("stream")
        self.streams[number] = _Stream()
        return number

    def adopt(self, stream: int) -> None:
        """A stream that others work on."""
        self.streams[stream] = _Stream()

    def destroy_stream(self, stream: int) -> None:
        self._outside_of_the_loop("destroy_stream")
        assert not self.streams[stream].work, "a stream is given back before its work is done"
        del self.streams[stream]

    def enqueue(
        self,
        stream: int,
        name: str,
        work: Work,
        reads: Iterable[int] = (),
        writes: Iterable[int] = (),
    ) -> None:
        """Do `work` when the host waits for it; it uses the memory at those addresses."""
        self._add(stream, _Operation(name, work, tuple(reads), tuple(writes)))

    def synchronize(self, stream: int) -> None:
        self._outside_of_the_loop("synchronize")
        with self._lock:
            self._finish(stream, self.streams[stream].asked)
            _join(self.host_clock, self.streams[stream].clock)

    def allocate(self, size: int, stream: int) -> int:
        self._outside_of_the_loop("allocate")
        assert self._capturing is None, "memory is taken while a graph is captured"
        if sum(map(len, self.memory.values())) + size > self._room:
            raise MemoryBudgetError("out of memory on the GPU: choose a smaller profile")
        address = self._address()
        self.memory[address] = np.full(size, 0xFF, np.uint8)
        return address

    def lend(self, memory: NDArray[np.uint8]) -> int:
        """An address for memory of a library's own, which works on it in a stream's order."""
        address = self._address()
        self.memory[address] = memory
        self.lent.add(address)
        return address

    def free(self, address: int, stream: int) -> None:
        assert not self._looping, "memory is given back within the loop"
        if self._raced:
            return  # the test is over: what it leaves is given back in any order
        if stream not in self.streams:  # as at exit, after everything
            self._forget(address)
            return
        self.enqueue(stream, "free", lambda: self._forget(address), writes=[address])

    def copy_in(self, address: int, array: NDArray[np.generic], stream: int) -> None:
        content = array.tobytes()  # read at once: the array is not page-locked
        self.enqueue(stream, "copy_in", lambda: self.write(address, content), writes=[address])

    def copy_out(self, array: NDArray[np.generic], address: int, stream: int) -> None:
        assert array.flags.c_contiguous

        def work() -> None:
            array.view(np.uint8).reshape(-1)[:] = self.read(address, array.nbytes)

        self.enqueue(stream, "copy_out", work, reads=[address])

    def event(self, *, timed: bool = False) -> int:
        number = self._number("event")
        self.events[number] = None
        return number

    def destroy_event(self, event: int) -> None:
        self._outside_of_the_loop("destroy_event")
        del self.events[event]

    def record(self, event: int, stream: int) -> None:
        assert event in self.events
        with self._lock:
            self.enqueue(stream, "record", lambda: self._stamp(event))
            at = self.streams[stream]
            self.events[event] = _Mark(stream, at.asked, dict(at.clock))

    def wait(self, stream: int, event: int) -> None:
        with self._lock:
            mark = self.events[event]
            if mark is None:
                return  # as CUDA does: an event that was never recorded is done
            _join(self.streams[stream].clock, mark.clock)
            self.enqueue(stream, "wait", lambda: self._finish(mark.stream, mark.position))

    def wait_for(self, event: int) -> None:
        self.asked.append("wait_for")
        with self._lock:
            if mark := self.events[event]:
                self._finish(mark.stream, mark.position)
                _join(self.host_clock, mark.clock)

    def passed(self, event: int) -> bool:
        mark = self.events[event]
        return mark is None or self.streams[mark.stream].done >= mark.position

    def milliseconds(self, start: int, end: int) -> float:
        assert self.passed(start) and self.passed(end), "the time of what is not done is asked for"
        return self._times[end] - self._times[start]

    def page_locked(self, size: int) -> PageLocked:
        self._outside_of_the_loop("page_locked")
        address = self._address()
        self.locked[address] = _Locked(self, address, size)
        return self.locked[address]

    def unlock(self, memory: PageLocked) -> None:
        self._outside_of_the_loop("unlock")
        assert isinstance(memory, _Locked)
        self.host_uses(memory.address)
        del self.locked[memory.address]

    def upload(self, address: int, memory: PageLocked, size: int, stream: int) -> None:
        assert isinstance(memory, _Locked)
        source = memory

        def work() -> None:
            self.write(address, source.memory[:size].tobytes())

        self.enqueue(stream, "upload", work, reads=[source.address], writes=[address])

    def download(self, memory: PageLocked, address: int, size: int, stream: int) -> None:
        assert isinstance(memory, _Locked)
        target = memory

        def work() -> None:
            target.memory[:size] = self.read(address, size)

        self.enqueue(stream, "download", work, reads=[address], writes=[target.address])

    def prepare(self) -> None:
        self._outside_of_the_loop("prepare")

    def begin_capture(self, stream: int) -> None:
        self._outside_of_the_loop("begin_capture")
        assert self._capturing is None, "two captures at a time"
        self._capturing = stream, []

    def end_capture(self, stream: int) -> int:
        assert self._capturing is not None and self._capturing[0] == stream
        number = self._number("end_capture")
        self.graphs[number], self._capturing = self._capturing[1], None
        return number

    def launch(self, graph: int, stream: int) -> None:
        self.asked.append("launch")
        with self._lock:
            for operation in self.graphs[graph]:
                self._add(stream, operation)

    def destroy_graph(self, graph: int) -> None:
        self._outside_of_the_loop("destroy_graph")
        del self.graphs[graph]

    def read(self, address: int, size: int) -> NDArray[np.uint8]:
        """What lies there now, to be looked at or changed."""
        memory, offset = self.allocation(address)
        assert offset + size <= len(memory), "more is used than there is"
        return memory[offset : offset + size]

    def write(self, address: int, content: bytes) -> None:
        """Put bytes there now."""
        self.read(address, len(content))[:] = np.frombuffer(content, np.uint8)

    def allocation(self, address: int) -> tuple[NDArray[np.uint8], int]:
        """The whole memory that an address lies in, and how far in it lies."""
        base, offset = _split(address)
        assert base in self.memory, "memory that was given back is used"
        return self.memory[base], offset

    def host_uses(self, address: int) -> None:
        """The host reads or writes page-locked memory: the device must be known to be done."""
        uses = self._uses.get(address, _Uses())
        for stream, position in [*uses.reads.items(), *([uses.write] if uses.write else [])]:
            if self.host_clock.get(stream, 0) < position:
                self._raced = True
                raise RaceError("the host uses memory that the device is not known to be done with")

    def _add(self, stream: int, operation: _Operation) -> None:
        if self._capturing is not None and self._capturing[0] == stream:
            self._capturing[1].append(operation)
            return
        self.asked.append(operation.name)
        with self._lock:
            at = self.streams[stream]
            at.asked += 1
            _join(at.clock, self.host_clock)  # what the host has waited for is done
            at.clock[stream] = at.asked
            for address in operation.reads:
                self._use(stream, address, operation.name, writes=False)
            for address in operation.writes:
                self._use(stream, address, operation.name, writes=True)
            at.work.append(operation.work)

    def _use(self, stream: int, address: int, name: str, *, writes: bool) -> None:
        base, clock = _split(address)[0], self.streams[stream].clock
        assert base in self.memory or base in self.locked, f"{name} uses memory that is gone"
        uses = self._uses.setdefault(base, _Uses())
        others = dict([uses.write] if uses.write else [])
        if writes:
            for other, position in uses.reads.items():
                others[other] = max(position, others.get(other, 0))
        for other, position in others.items():
            if clock.get(other, 0) < position:
                self._raced = True
                raise RaceError(
                    f"{name} on stream {stream} uses memory that stream {other} may still use"
                )
        position = self.streams[stream].asked
        if writes:
            self._uses[base] = _Uses(write=(stream, position))
        else:
            uses.reads[stream] = position

    def _finish(self, stream: int, position: int) -> None:
        """Do a stream's work up to `position`, and what that waits for."""
        at = self.streams.get(stream)
        while at is not None and at.done < position:  # one that was given back has done it
            work = at.work.popleft()
            work()
            at.done += 1
            self._time += 1.0

    def _stamp(self, event: int) -> None:
        self._times[event] = self._time

    def _outside_of_the_loop(self, name: str) -> None:
        self.asked.append(name)
        assert not self._looping, f"{name} within the loop"

    def _number(self, name: str) -> int:
        self._outside_of_the_loop(name)
        self._numbers += 1
        return self._numbers

    def _address(self) -> int:
        self._next += _APART
        return self._next

    def _forget(self, address: int) -> None:
        assert address in self.memory, "memory is given back twice"
        del self.memory[address]


def _split(address: int) -> tuple[int, int]:
    """Where the allocation begins that an address lies in, and how far in it lies."""
    offset = (address - _FIRST) % _APART
    return address - offset, offset


def _join(clock: Clock, other: Clock) -> None:
    """Know all that the other knows, too."""
    for stream, position in other.items():
        clock[stream] = max(position, clock.get(stream, 0))
