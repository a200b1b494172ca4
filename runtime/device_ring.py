"""Memory that goes round between two streams, or between a stream and the host, ordered by events.

A slot is taken by the stream that fills it, read by others, and given back by the last of them.
Who takes it again waits, on the device, for that; the host waits only for memory of its own.
"""

from vr_trt.runtime.cuda import PageLocked
from vr_trt.runtime.device_tensor import DeviceTensor
from vr_trt.runtime.lanes import Lanes


class Slot:
    """One place of a ring."""

    def __init__(self, lanes: Lanes, tensor: DeviceTensor) -> None:
        self.tensor = tensor
        self.taken = False
        self._device = lanes.device
        self._filled, self._read = lanes.event(), lanes.event()

    def take(self, stream: int) -> None:
        """`stream` fills it from now on: after what was read of its last content."""
        self.taken = True
        self._device.wait(stream, self._read)

    def filled(self, stream: int) -> None:
        """What `stream` was asked to do by now fills it."""
        self._device.record(self._filled, stream)

    def read_by(self, stream: int) -> None:
        """`stream` reads it from now on."""
        self._device.wait(stream, self._filled)

    def give_back(self, stream: int) -> None:
        """Nobody reads it after what `stream` was asked to do by now."""
        if not self.taken:
            raise RuntimeError("a slot is given back twice: report this")
        self.taken = False
        self._device.record(self._read, stream)


class Ring:
    """Slots of one size, taken in turn."""

    def __init__(
        self, lanes: Lanes, name: str, count: int, sizes: tuple[int, ...], kind: str
    ) -> None:
        """MemoryBudgetError where there is no room."""
        self._name = name
        self._slots = [Slot(lanes, lanes.tensor(sizes, kind)) for _ in range(count)]
        self._next = 0

    def take(self, stream: int) -> Slot:
        """The next slot, for `stream` to fill."""
        slot = self._slots[self._next]
        if slot.taken:
            raise RuntimeError(f"all {len(self._slots)} {self._name} are in use: report this")
        self._next = (self._next + 1) % len(self._slots)
        slot.take(stream)
        return slot

    def take_back(self) -> bool:
        """Whatever was held is free, for a shot was given up; whether anything was.

        Then streams may still work on it, and nothing that they record says until when.
        """
        held = [slot for slot in self._slots if slot.taken]
        for slot in held:
            slot.taken = False
        return bool(held)


class HostSlot:
    """Page-locked memory that a stream reads or writes by itself."""

    def __init__(self, lanes: Lanes, size: int) -> None:
        self.memory: PageLocked = lanes.page_locked(size)
        self._device = lanes.device
        self._copied = lanes.event()

    def copied_by(self, stream: int) -> None:
        """What `stream` was asked to do by now copies it."""
        self._device.record(self._copied, stream)

    def wait(self) -> None:
        """Let the host wait until it was copied."""
        self._device.wait_for(self._copied)


class HostRing:
    """Slots that the host fills, taken in turn."""

    def __init__(self, lanes: Lanes, count: int, size: int) -> None:
        """MemoryBudgetError where there is no room."""
        self._slots = [HostSlot(lanes, size) for _ in range(count)]
        self._next = 0

    def take(self) -> HostSlot:
        """The next slot, once its last content has reached the device."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        slot.wait()
        return slot
