"""A part of a device's memory: rows of equal length, evenly apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Region:
    """`rows` stretches of `columns` items each, whose starts are `pitch` items apart."""

    address: int
    kind: str  # of an item; see runtime/device_tensor.py
    rows: int
    columns: int
    pitch: int


def whole(address: int, sizes: Sequence[int], kind: str) -> Region:
    """A contiguous tensor."""
    items = prod(sizes)
    return Region(address, kind, 1, items, items)


def frames(
    address: int,
    sizes: Sequence[int],  # [1, C, T, h, w] of the tensor
    kind: str,
    item_bytes: int,
    part: range,  # of its T frames or latents
) -> Region:
    """Some frames of all channels of a tensor."""
    _, channels, count, height, width = sizes
    if not 0 <= part.start <= part.stop <= count:
        raise ValueError(f"{part} is not within {count} frames")
    frame = height * width
    start = address + part.start * frame * item_bytes
    return Region(start, kind, channels, len(part) * frame, count * frame)
