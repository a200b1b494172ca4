"""What each stream of a device did when: one row of a trace for every stream.

Pairs of timed events, taken before the start, go round; a pair is read when the device has passed
it. Spans for which no pair is free are left out and counted. Never executed by us on a GPU.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from vr_trt.runtime.cuda import Device
from vr_trt.runtime.stage_trace import Trace

PAIRS = 2048  # of events: some chunks of frames


@dataclass(frozen=True, slots=True)
class _Span:
    row: str
    name: str
    start: int  # events
    end: int


class DeviceTrace:
    """Adds the device's spans to a run's trace."""

    def __init__(
        self, device: Device, rows: Mapping[int, str], trace: Trace, pairs: int = PAIRS
    ) -> None:
        """`rows`: a name for every stream. Takes the events; the streams' common clock starts now."""
        self.missed = 0  # spans
        self._device, self._trace = device, trace
        self._rows = {stream: f"device: {name}" for stream, name in rows.items()}
        self._spans: deque[_Span] = deque()
        self._free = deque(
            (device.event(timed=True), device.event(timed=True)) for _ in range(pairs)
        )
        self._zero = device.event(timed=True)
        first = next(iter(rows))
        device.record(self._zero, first)
        device.synchronize(first)
        self._started = perf_counter()

    @contextmanager
    def span(self, stream: int, name: str) -> Iterator[None]:
        """What the block enqueues on `stream`."""
        self.read()
        if not self._free:
            self.missed += 1
            yield
            return
        start, end = self._free.popleft()
        self._device.record(start, stream)
        yield
        self._device.record(end, stream)
        self._spans.append(_Span(self._rows[stream], name, start, end))

    def end(self) -> None:
        """Read the rest, which is done, and give the events back."""
        self.read()
        for event in [self._zero, *(event for pair in self._free for event in pair)]:
            self._device.destroy_event(event)
        self._free.clear()

    def read(self) -> None:
        """Write down the spans that are done, of whichever stream."""
        waiting: deque[_Span] = deque()
        while self._spans:
            span = self._spans.popleft()
            if self._device.passed(span.end):
                at, until = (
                    self._started + self._device.milliseconds(self._zero, event) / 1000
                    for event in (span.start, span.end)
                )
                self._trace.add(span.name, at, until, span.row)
                self._free.append((span.start, span.end))
            else:
                waiting.append(span)
        self._spans = waiting
