"""Watching a child process: its lines as they come, its memory, and its end."""

import os
import selectors
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOOK_EVERY = 0.2  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Work in progress."""

    doing: str
    seconds: float
    bytes: int  # of memory held now


def lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Every line as it comes, and an empty one now and then; ends with the pipe."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_EVERY):
                yield b""
                continue
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                return
            *whole, rest = (rest + part).split(b"\n")
            yield from whole


def resident_bytes(pid: int) -> int:
    """Bytes of memory that the process holds; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
