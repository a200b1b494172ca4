"""A segment on disk: encoded packets with the times of the run, exactly.

Not a container of FFmpeg's, because those round times, or count them from the segment's own start.
A segment is complete when it has its name: it grows beside it and is moved.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vr_trt.errors import DamagedInputError
from vr_trt.runtime.publish import sync

_MAGIC = b"vr-trt segment 1\n"
_HEAD = struct.Struct("<qqI?")  # pts, duration, bytes, key frame


@dataclass(frozen=True, slots=True)
class StoredPacket:
    """One encoded picture, in decoding order."""

    pts: int
    duration: int
    keyframe: bool
    data: bytes


class PacketWriter:
    """Writes a segment; `publish` gives it its name. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_suffix(".partial")
        self._file = self._partial.open("wb")
        self._file.write(_MAGIC)

    def write(self, packet: StoredPacket) -> None:
        """Append a packet."""
        size = len(packet.data)
        self._file.write(_HEAD.pack(packet.pts, packet.duration, size, packet.keyframe))
        self._file.write(packet.data)

    def publish(self) -> int:
        """Bring the segment to disk and give it its name; its size in bytes."""
        self._file.flush()
        size = self._file.tell()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        sync(self._path.parent)
        return size

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # a full disk: what is still in the buffer has no place
            self._file.close()
        self._partial.unlink(missing_ok=True)


def store_segment(path: Path, data: bytes) -> None:
    """Publish a segment that another machine has written. Raises OSError."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def read_packets(path: Path) -> Iterator[StoredPacket]:
    """The packets of a published segment, in decoding order. DamagedInputError where it is none."""
    with path.open("rb") as file:
        for pts, duration, size, keyframe in _heads(file, path):
            data = file.read(size)
            if len(data) < size:
                raise _damaged(path)
            yield StoredPacket(pts, duration, keyframe, data)


def read_times(path: Path) -> list[tuple[int, int]]:
    """Time and duration of each picture of a segment, in the order in which they are shown."""
    times = []
    with path.open("rb") as file:
        for pts, duration, size, _ in _heads(file, path):
            times.append((pts, duration))
            file.seek(size, os.SEEK_CUR)
    return sorted(times)


def _heads(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int, bool]]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(path)
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            raise _damaged(path)
        yield _HEAD.unpack(head)


def _damaged(path: Path) -> DamagedInputError:
    return DamagedInputError(f"the segment {path} is damaged: start over with --overwrite")
