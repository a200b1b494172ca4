"""The streams of a run on a device, and all that is taken for it before its first frame.

What is taken is given back together, when the streams are done; nothing is taken in between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vr_trt.runtime.cuda import Device, PageLocked
from vr_trt.runtime.device_tensor import DeviceTensor
from vr_trt.runtime.device_trace import DeviceTrace
from vr_trt.runtime.stage_trace import Trace


class Lanes:
    """Five streams: upload, pre (pixels to the networks), main, post (back), download; and others."""

    def __init__(self, device: Device, main: int) -> None:
        """`main` is the sessions' own stream, which stays theirs."""
        self.device, self.main = device, main
        self.upload, self.pre, self.post, self.download = (device.stream() for _ in range(4))
        streams = (self.upload, self.pre, self.main, self.post, self.download)
        names = ("upload", "pre", "main", "post", "download")
        self._streams = dict(zip(streams, names, strict=True))
        self._trace: DeviceTrace | None = None
        self._tensors: list[DeviceTensor] = []
        self._events: list[int] = []
        self._locked: list[PageLocked] = []
        self._graphs: list[int] = []
        self._captures: list[Callable[[], None]] = []
        self._at_close: list[Callable[[], None]] = []
        self._marks = {stream: self.event() for stream in streams}
        self._open = True
        device.prepare()

    def follow(self, trace: Trace) -> None:
        """From now on every stream has a row in `trace`, unless they have one already."""
        if self._trace is None:
            self._trace = DeviceTrace(self.device, self._streams, trace)

    def read_trace(self) -> None:
        """Write down what is done by now."""
        if self._trace is not None:
            self._trace.read()

    def another(self, name: str) -> int:
        """One more stream."""
        stream = self.device.stream()
        self._streams[stream] = name
        return stream

    def tensor(self, sizes: tuple[int, ...], kind: str) -> DeviceTensor:
        """Memory on the device, of any content; MemoryBudgetError where there is no room."""
        self._tensors.append(DeviceTensor(self.device, self.main, sizes, kind))
        self.device.synchronize(self.main)  # other streams may use it from now on
        return self._tensors[-1]

    def event(self) -> int:
        self._events.append(self.device.event())
        return self._events[-1]

    def meet(self) -> None:
        """Let the five streams do nothing more before all has been done that they were asked by now."""
        for stream, event in self._marks.items():
            self.device.record(event, stream)
        for stream in self._marks:
            for event in self._marks.values():
                self.device.wait(stream, event)

    def page_locked(self, size: int) -> PageLocked:
        """Memory of the host; MemoryBudgetError where there is no room."""
        self._locked.append(self.device.page_locked(size))
        return self._locked[-1]

    def graph(self, stream: int, work: Callable[[], object]) -> int:
        """What `work` enqueues on `stream`, to be launched."""
        self.device.begin_capture(stream)
        work()
        self._graphs.append(self.device.end_capture(stream))
        return self._graphs[-1]

    def before_start(self, work: Callable[[], None]) -> None:
        """Let `work` be done when everything has been taken, and has its final place."""
        self._captures.append(work)

    def start(self) -> None:
        """From now on nothing is taken."""
        for work in self._captures:
            work()
        self._captures.clear()

    @contextmanager
    def span(self, stream: int, name: str) -> Iterator[None]:
        """What the block enqueues is a call of its own in a trace."""
        if self._trace is None:
            yield
            return
        with self._trace.span(stream, name):
            yield

    def at_close(self, work: Callable[[], None]) -> None:
        """Let `work` be done when the streams are, and are still there."""
        self._at_close.append(work)

    def close(self) -> None:
        """Wait for all streams and give everything back. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        for stream in self._streams:
            self.device.synchronize(stream)
        if self._trace is not None:
            self._trace.end()
        for work in self._at_close:
            work()
        for graph in self._graphs:
            self.device.destroy_graph(graph)
        for event in self._events:
            self.device.destroy_event(event)
        for memory in self._locked:
            self.device.unlock(memory)
        for tensor in self._tensors:
            tensor.free()
        for stream in self._streams:
            if stream != self.main:
                self.device.destroy_stream(stream)
        self.device.synchronize(self.main)
