"""What every stage did when: busy time, and a trace that Perfetto and chrome://tracing open.

The trace is the Chrome JSON array format: one complete event ("X") a call, in microseconds from the
run's start, and counters ("C") for the queues. Source: "Trace Event Format", Google.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO


@dataclass(slots=True)
class StageTime:
    """Calls of one stage and the seconds that they took together."""

    calls: int = 0
    seconds: float = 0.0


class Trace:
    """Adds up the calls of every stage, and writes each to a file if one is given.

    From any thread; events go to the file as they come, so memory stays constant.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises OSError where the file cannot be written."""
        self.stages: dict[str, StageTime] = {}
        self._start = perf_counter()
        self._lock = threading.Lock()
        self._rows: dict[int | str, int] = {}  # by thread, or by name
        self._first = True
        self.written = path is not None
        self._file: TextIO | None = None
        if path is not None:
            self._file = path.open("w", encoding="utf-8")
            self._file.write("[\n")

    def add(self, name: str, start: float, end: float, row: str = "") -> None:
        """One call, from `start` to `end` of perf_counter; in the thread's row, or one by name."""
        with self._lock:
            stage = self.stages.setdefault(name, StageTime())
            stage.calls += 1
            stage.seconds += end - start
        at, length = round((start - self._start) * 1e6), round((end - start) * 1e6)
        self._write({"name": name, "ph": "X", "ts": at, "dur": length}, row)

    def count(self, name: str, value: int) -> None:
        """The value of a counter from now on."""
        at = round((perf_counter() - self._start) * 1e6)
        self._write({"name": name, "ph": "C", "ts": at, "args": {"frames": value}})

    def close(self) -> None:
        """End the file; nothing is written after that. Safe to call twice."""
        with self._lock:
            if self._file is not None:
                self._file.write("\n]\n")
                self._file.close()
                self._file = None

    def _write(self, event: dict[str, Any], row: str = "") -> None:
        thread = threading.current_thread()
        key = row or thread.ident or 0
        with self._lock:
            if self._file is None:
                return
            number = self._rows.get(key)
            if number is None:
                number = self._rows[key] = len(self._rows) + 1
                name = {"name": "thread_name", "ph": "M", "args": {"name": row or thread.name}}
                self._line(self._file, name, number)
            self._line(self._file, event, number)

    def _line(self, file: TextIO, event: dict[str, Any], thread: int) -> None:
        file.write("" if self._first else ",\n")
        file.write(json.dumps({**event, "pid": 1, "tid": thread}))
        self._first = False


# The trace of the run that the current thread works for.
_ACTIVE: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def tracing(path: Path | None) -> Iterator[Trace]:
    """What the block, and threads that copy its context, do goes into one trace."""
    trace = Trace(path)
    token = _ACTIVE.set(trace)
    try:
        yield trace
    finally:
        _ACTIVE.reset(token)
        trace.close()


@contextmanager
def stage_call(name: str) -> Iterator[None]:
    """The time that the block takes, as a call of the stage `name`."""
    start = perf_counter()
    try:
        yield
    finally:
        if trace := _ACTIVE.get():
            trace.add(name, start, perf_counter())


def active_trace() -> Trace | None:
    """The trace of the run that the current thread works for."""
    return _ACTIVE.get()


def queue_length(name: str, frames: int) -> None:
    """How many frames are in a queue from now on."""
    if trace := _ACTIVE.get():
        trace.count(name, frames)
