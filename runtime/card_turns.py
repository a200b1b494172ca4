"""Parts of a run that take turns in one piece of the card's memory (see `engines.rota`).

Before a part works there, what lies where it will work is copied to page-locked memory of the host,
and its own content comes back. All of it is copies in the order of the main stream: the host waits
for none, nothing is taken, and every tensor has one place always, so graphs stay as they were
captured. Nothing is copied while the same part goes on.

Never executed by us on a GPU. Tests run it on a device that checks the order of all it is asked.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from vr_trt.engines.rota import GENERATOR, Rota, in_words, part_of
from vr_trt.errors import MemoryBudgetError
from vr_trt.runtime.cuda import Device, PageLocked

Span = Callable[[int, str], AbstractContextManager[None]]  # of a stream's work, in a trace


class CardTurns:
    """Who lies in the memory that parts share, and copies that change it."""

    def __init__(self, device: Device, stream: int, address: int, rota: Rota) -> None:
        """`address`: of `rota.memory` bytes; `stream`: of the networks.

        MemoryBudgetError where the host has no room.
        """
        self._device, self._stream, self._rota = device, stream, rota
        self._slices: list[_Slice] = []
        self.span: Span = _untraced
        try:
            for found in rota.slices:
                mirrors: dict[str, PageLocked] = {}
                self._slices.append(_Slice(address + found.start, found.size, mirrors))
                for part in found.parts:
                    mirrors[part] = device.page_locked(found.size)
        except MemoryBudgetError:
            self.close()
            raise MemoryBudgetError(
                f"{in_words(rota.sizes)} take turns on the card, and the host cannot page-lock the "
                f"{rota.mirrors >> 20} MiB for that: free some memory, or choose a smaller --profile"
            ) from None

    def close(self) -> None:
        """Wait for the networks' stream and give the host's memory back. Safe to call twice."""
        slices, self._slices = self._slices, []
        self._device.synchronize(self._stream)
        for slice in slices:
            for memory in slice.mirrors.values():
                self._device.unlock(memory)

    def enter(self, stage: str, stream: int | None = None) -> None:
        """Have there what `stage` reads and writes, in order with `stream`, or with the networks'.

        A shot's first call writes all states of its part, and with the encoder's, the decoder's are
        those of a shot that is over: neither is copied. A picture has no states.
        """
        part, call = part_of(stage), stage.partition("_")[2]
        if call == "start":
            self._forget(part)
            if part == "encoder":
                self._forget("decoder")
        if part not in self._rota.sizes or (part != GENERATOR and call == "image"):
            return
        stream = self._stream if stream is None else stream
        for slice in self._slices:
            if part in slice.mirrors:
                self._bring(slice, part, stream)

    def trace_no_more(self) -> None:
        """What `span` belonged to is closed."""
        self.span = _untraced

    def _bring(self, slice: "_Slice", part: str, stream: int) -> None:
        here = slice.here
        if here != part:
            if here is not None and here not in slice.kept:
                with self.span(stream, f"{here} to the host"):
                    memory = slice.mirrors[here]
                    self._device.download(memory, slice.address, slice.size, stream)
                slice.kept.add(here)
            if part in slice.kept:
                with self.span(stream, f"{part} to the card"):
                    self._device.upload(slice.address, slice.mirrors[part], slice.size, stream)
            slice.here = part
        if part != GENERATOR:  # it changes now
            slice.kept.discard(part)

    def _forget(self, part: str) -> None:
        """What it had is not needed any more."""
        for slice in self._slices:
            slice.kept.discard(part)
            if slice.here == part:
                slice.here = None


class _Slice:
    """A stretch of the memory with its mirrors, one for each part that lies there."""

    def __init__(self, address: int, size: int, mirrors: dict[str, PageLocked]) -> None:
        self.address, self.size, self.mirrors = address, size, mirrors
        self.here: str | None = None  # whose content lies there
        self.kept: set[str] = set()  # whose mirror holds what they had last


def _untraced(stream: int, name: str) -> AbstractContextManager[None]:
    return nullcontext()
