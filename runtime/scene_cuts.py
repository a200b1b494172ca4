"""Where one shot ends and the next begins: hard cuts, found on small pictures of the luma.

A cut is a jump in the picture (by level), alone among its neighbours (a fade or a pan jumps every
frame), after which nothing within a few frames looks like anything before it, not even moved aside
(a pan) or brighter (a flash, after which the old picture comes back). The decision about a frame
looks at REACH frames before it and at REACH from it on, and at nothing else, so it does not depend
on where reading began. All sums are of integers: the same on every machine.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.frames import Frame, PixelFormat

REACH = 4  # frames on each side that decide
GRID = (36, 64)  # rows and columns of a thumbnail
_SAMPLES = 4  # pixels across a cell that are looked at
_JUMP = 7  # levels of 255: a smaller mean change is never a cut
_CHANGED = (6, 0.4)  # levels, share of the cells: a cut changes the picture nearly everywhere
_ALONE = 2.5  # a cut's jump by the largest of its neighbours'
_ALIKE = 0.8  # correlation from which two pictures show the same scene
_MOVES = (10, 24)  # cells up or down, left or right, that a scene may have moved aside
_FLAT = 16  # variance, levels squared, below which there is nothing to correlate

Thumbnail = NDArray[np.int32]  # [36, 64] levels of 255; smaller where the picture is


@runtime_checkable
class CellsOnCard(Protocol):
    """A picture on a card, of whose luma the sums over cells can be had alone."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the luma."""

    def cell_sums(self) -> NDArray[np.int32]:
        """[rows, columns]: sums over `picks` of both sides; waits for the GPU."""


def thumbnail(frame: Frame, pixel: PixelFormat) -> Thumbnail:
    """Mean levels of the cells of a grid over the luma, [rows, columns] in 0..255.

    Of a frame on a card the cells' sums alone come to the host: the same to the bit.
    """
    if isinstance(frame.content, CellsOnCard):
        cells = frame.content.cell_sums() // _samples_a_cell(frame.content.shape)
    else:
        planes = frame.planes[:3] if pixel.layout == "rgb" else frame.planes[:1]
        cells = sum(_cells(plane) for plane in planes) // len(planes)
    return np.asarray(cells >> (pixel.bits - 8), np.int32)


def _cells(plane: NDArray[np.integer]) -> NDArray[np.int64]:
    rows, columns = picks(plane.shape)
    picked = plane[np.ix_(rows.reshape(-1), columns.reshape(-1))].astype(np.int64)
    split = picked.reshape(*rows.shape, *columns.shape)
    return split.sum(axis=(1, 3)) // (rows.shape[1] * columns.shape[1])


def picks(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices [cells, samples] of the rows and of the columns that stand for the cells."""
    rows, columns = (_picks(length, cells) for length, cells in zip(shape, GRID, strict=True))
    return rows, columns


def _samples_a_cell(shape: tuple[int, int]) -> int:
    rows, columns = picks(shape)
    return rows.shape[1] * columns.shape[1]


def _picks(length: int, cells: int) -> NDArray[np.int64]:
    cells = min(cells, length)
    samples = max(1, min(_SAMPLES, length // cells))
    at = np.arange(cells * samples, dtype=np.int64)
    return (at * length // (cells * samples)).reshape(cells, samples)


def jump(one: Thumbnail, other: Thumbnail) -> float:
    """Mean absolute difference in levels."""
    return int(np.abs(one - other).sum()) / one.size


def likeness(one: Thumbnail, other: Thumbnail) -> float:
    """Correlation, at best 1, of two pictures at the best of all moves."""
    best = _correlation(one, other)
    rows, columns = one.shape
    for down in range(-min(_MOVES[0], rows // 3), min(_MOVES[0], rows // 3) + 1, 2):
        for right in range(-min(_MOVES[1], columns * 3 // 8), columns * 3 // 8 + 1, 2):
            if best >= _ALIKE:
                return best
            a = one[max(0, down) : rows + min(0, down), max(0, right) : columns + min(0, right)]
            b = other[max(0, -down) : rows - max(0, down), max(0, -right) : columns - max(0, right)]
            best = max(best, _correlation(a, b))
    return best


def _correlation(one: Thumbnail, other: Thumbnail) -> float:
    """Of levels; two flat pictures are alike, a flat one and another are not."""
    a, b = one.reshape(-1).astype(np.int64), other.reshape(-1).astype(np.int64)
    count, sum_a, sum_b = a.size, int(a.sum()), int(b.sum())
    floor = _FLAT * count * count
    spread_a = count * int(a @ a) - sum_a * sum_a
    spread_b = count * int(b @ b) - sum_b * sum_b
    if spread_a < floor and spread_b < floor:
        return 1.0
    if spread_a < floor or spread_b < floor:
        return 0.0
    return (count * int(a @ b) - sum_a * sum_b) / (spread_a * spread_b) ** 0.5


def is_cut(before: list[Thumbnail], after: list[Thumbnail]) -> bool:
    """Whether a shot begins with the first of `after`: up to REACH frames each, in order."""
    step = jump(before[-1], after[0])
    levels, share = _CHANGED
    changed = int((np.abs(before[-1] - after[0]) >= levels).sum())
    if step < _JUMP or changed < share * before[-1].size:
        return False
    line = before + after
    others = [jump(a, b) for a, b in pairwise(line)]
    del others[len(before) - 1]
    if any(step < _ALONE * other for other in others):
        return False
    nearest_first = sorted(
        ((a, b) for a in range(len(before)) for b in range(len(after))),
        key=lambda pair: len(before) - pair[0] + pair[1],
    )
    return all(likeness(before[a], after[b]) < _ALIKE for a, b in nearest_first)


def mark_cuts(frames: Iterable[Frame], pixel: PixelFormat) -> Iterator[Frame]:
    """`frames` as they are, those with which a shot begins marked; holds REACH of them back."""
    before: deque[Thumbnail] = deque(maxlen=REACH)
    waiting: deque[tuple[Frame, Thumbnail]] = deque()
    for frame in frames:
        waiting.append((frame, thumbnail(frame, pixel)))
        if len(waiting) == REACH:
            yield _decided(before, waiting)
    while waiting:
        yield _decided(before, waiting)


def _decided(before: deque[Thumbnail], waiting: deque[tuple[Frame, Thumbnail]]) -> Frame:
    """The oldest of the waiting frames, marked or not."""
    cut = bool(before) and is_cut(list(before), [small for _, small in waiting])
    frame, small = waiting.popleft()
    before.append(small)
    return replace(frame, starts_shot=True) if cut else frame
