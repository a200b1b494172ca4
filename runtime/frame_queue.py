"""A bounded queue between two threads, in frames, that a stop wakes at once."""

from collections import deque
from collections.abc import Iterator
from threading import Condition

from vr_trt.runtime.frames import Frame
from vr_trt.runtime.stage_trace import queue_length


class Stopped(Exception):
    """The run ends early, for a reason that another thread raises."""


class FrameQueue:
    """Frames from one thread to another; `put` waits while `capacity` of them are in it."""

    def __init__(self, capacity: int, name: str = "frames") -> None:
        """`name`: of the queue in a trace."""
        self._name = name
        self._capacity = capacity
        self._frames: deque[Frame] = deque()
        self._changed = Condition()
        self._closed = False
        self._stopped = False

    def put(self, frame: Frame) -> None:
        """Add a frame when there is room; raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._frames) < self._capacity)
            if self._stopped:
                raise Stopped
            self._frames.append(frame)
            queue_length(self._name, len(self._frames))
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no frame follows."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Empty the queue; both sides get Stopped."""
        with self._changed:
            self._stopped = True
            self._frames.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        """Frames until `close`; raises Stopped."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._closed or self._frames)
                if self._stopped:
                    raise Stopped
                if not self._frames:
                    return
                frame = self._frames.popleft()
                queue_length(self._name, len(self._frames))
                self._changed.notify_all()
            yield frame
