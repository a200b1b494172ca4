"""A device without a GPU: work waits in its stream until the host waits for it.

Memory that nobody wrote reads as ones in every bit, which is NaN in every floating type. Using memory
that was given back, or never taken, fails the test; so does a result that was read too early, since
it is not there yet.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import MemoryBudgetError

Work = Callable[[], None]


class RecordedDevice:
    """A `vr_trt.runtime.cuda.Device` that records the names of what was asked of it."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.asked: list[str] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self._room = room
        self._next = 0x1000
        self._streams: dict[int, deque[Work]] = {}

    def stream(self) -> int:
        self._streams[len(self._streams) + 1] = deque()
        return len(self._streams)

    def enqueue(self, stream: int, name: str, work: Work) -> None:
        """Do `work` when the host waits for the stream."""
        self.asked.append(name)
        self._streams[stream].append(work)

    def synchronize(self, stream: int) -> None:
        self.asked.append("synchronize")
        while self._streams[stream]:
            self._streams[stream].popleft()()

    def allocate(self, size: int, stream: int) -> int:
        if sum(map(len, self.memory.values())) + size > self._room:
            raise MemoryBudgetError("out of memory on the GPU: choose a smaller profile")
        self._next += 1 << 32
        self.memory[self._next] = np.full(size, 0xFF, np.uint8)
        return self._next

    def free(self, address: int, stream: int) -> None:
        self.enqueue(stream, "free", lambda: self._forget(address))

    def copy_in(self, address: int, array: NDArray[np.generic], stream: int) -> None:
        content = array.tobytes()  # read at once: the array is not page-locked
        self.enqueue(stream, "copy_in", lambda: self.write(address, content))

    def copy_out(self, array: NDArray[np.generic], address: int, stream: int) -> None:
        assert array.flags.c_contiguous

        def work() -> None:
            array.view(np.uint8).reshape(-1)[:] = self.read(address, array.nbytes)

        self.enqueue(stream, "copy_out", work)

    def read(self, address: int, size: int) -> NDArray[np.uint8]:
        """What lies there now."""
        assert address in self.memory, "memory that was given back is read"
        assert size <= len(self.memory[address]), "more is read than there is"
        return self.memory[address][:size]

    def write(self, address: int, content: bytes) -> None:
        """Put bytes there now."""
        assert address in self.memory, "memory that was given back is written"
        assert len(content) <= len(self.memory[address]), "more is written than there is room for"
        self.memory[address][: len(content)] = np.frombuffer(content, np.uint8)

    def _forget(self, address: int) -> None:
        assert address in self.memory, "memory is given back twice"
        del self.memory[address]
