"""What a run's trace says: seconds of every stage call, of every frame, and when the first came.

Traces are those of `runtime/stage_trace.py`: complete events, microseconds from the trace's start.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ, WRITE = "read", "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """One pass over a clip, as its trace tells it; seconds."""

    stages: Mapping[str, list[float]]  # each call of each stage
    frames: list[float]  # each frame, from read to written
    first_to_end: float  # from the first frame written to the pass's last moment


def read_trace(path: Path) -> Calls:
    """The calls in a trace's file."""
    return calls_of([row for row in json.loads(path.read_text()) if row["ph"] == "X"])


def calls_of(spans: Sequence[Mapping[str, Any]]) -> Calls:
    """The calls of complete events; the last `read` finds the end, the last `write` publishes."""
    stages: dict[str, list[float]] = {}
    for span in spans:
        stages.setdefault(span["name"], []).append(span["dur"] / 1e6)
    read, written = (_ends(spans, name) for name in (READ, WRITE))
    frames = [end - start for start, end in zip(read[:-1], written[:-1], strict=False)]
    return Calls(stages=stages, frames=frames, first_to_end=written[-1] - written[0])


def _ends(spans: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return sorted((span["ts"] + span["dur"]) / 1e6 for span in spans if span["name"] == name)
