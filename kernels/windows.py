"""Windows: a pure function of the token grid, computed once in plain Python.

Dimension key: T, H, W token grid (frames, rows, columns of 16 x 16 pixels), N = T*H*W tokens,
nW windows, L tokens of a window. Source: network spec §4.2.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from vr_trt.kernels.rope import Rope, video_tables

Grid = tuple[int, int, int]  # T, H, W
Span = tuple[int, int]  # [start, stop)
Window = tuple[Span, Span, Span]  # frames, rows, columns

NUM_WINDOWS = (4, 3, 3)  # windows per axis at 720p, in every published model
AREA_720P = 45 * 80  # tokens of a 720p frame
MAX_FRAMES = 30


@dataclass(frozen=True, slots=True, eq=False)
class WindowGroup:
    """All windows of one shape: they form one batched attention, without mask or padding."""

    shape: Grid
    index: NDArray[np.int64]  # [nW, L] the tokens of each window, row-major t, h, w


@dataclass(frozen=True, slots=True, eq=False)
class WindowTables:
    """A partition of the grid into groups, and the way back."""

    groups: tuple[WindowGroup, ...]
    place: NDArray[np.int64]  # [N] where each token stands in the groups' outputs, concatenated

    @property
    def count(self) -> int:
        """How many windows there are."""
        return sum(len(group.index) for group in self.groups)


def window_size(grid: Grid) -> Grid:
    """The largest window of `grid`, in tokens per axis."""
    frames, rows, columns = grid
    scale = sqrt(AREA_720P / (rows * columns))
    return (
        ceil(min(frames, MAX_FRAMES) / NUM_WINDOWS[0]),
        ceil(round(rows * scale) / NUM_WINDOWS[1]),
        ceil(round(columns * scale) / NUM_WINDOWS[2]),
    )


def axis_spans(length: int, window: int, shifted: bool) -> list[Span]:
    """Cut one axis into windows; shifted, the first is half a window long (and none wraps)."""
    if not shifted:
        edges = [*range(0, length, window), length]
    elif window >= length:
        edges = [0, length]
    else:
        steps = range(ceil(length / window) + 1)
        edges = [0, *(min(int((step + 0.5) * window), length) for step in steps)]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def partition(grid: Grid, shifted: bool) -> list[Window]:
    """The windows of `grid`, in the reference's order: columns slowest, frames fastest."""
    frames, rows, columns = (
        axis_spans(length, window, shifted)
        for length, window in zip(grid, window_size(grid), strict=True)
    )
    return [(t, h, w) for w in columns for h in rows for t in frames]


def window_tokens(grid: Grid, window: Window) -> NDArray[np.int64]:
    """[L]: the token indices of one window, row-major."""
    _, rows, columns = grid
    t, h, w = (np.arange(*span, dtype=np.int64) for span in window)
    return ((t[:, None, None] * rows + h[:, None]) * columns + w).reshape(-1)


def _shape(window: Window) -> Grid:
    (t0, t1), (h0, h1), (w0, w1) = window
    return t1 - t0, h1 - h0, w1 - w0


@lru_cache(maxsize=64)
def window_tables(grid: Grid, shifted: bool) -> WindowTables:
    """Group the windows of `grid` by shape."""
    by_shape: dict[Grid, list[NDArray[np.int64]]] = {}
    for window in partition(grid, shifted):
        by_shape.setdefault(_shape(window), []).append(window_tokens(grid, window))
    groups = tuple(WindowGroup(shape, np.stack(rows)) for shape, rows in by_shape.items())
    order = np.concatenate([group.index.reshape(-1) for group in groups])
    return WindowTables(groups, np.argsort(order))


def any_size_tables(
    grid: Grid, text_tokens: int, head_width: int, rope: Rope
) -> dict[str, NDArray[np.generic]]:
    """The window tables that a generator graph of any size takes as inputs.

    Windows are padded to the longest and masked, so that one graph serves every grid. For s in
    `plain`, `shifted`: `s.index` [nW, L] int64, `s.mask` [nW, 1, 1, L + text] bool (True where a
    key is real), `s.place` [N] int64 into the flattened [nW * L], `s.cos` and `s.sin`
    [N, 1, head_width / 2] float32.
    """
    tables: dict[str, NDArray[np.generic]] = {}
    for name, shifted in (("plain", False), ("shifted", True)):
        windows = partition(grid, shifted)
        tokens = [window_tokens(grid, window) for window in windows]
        longest = max(len(row) for row in tokens)
        index = np.zeros((len(windows), longest), np.int64)
        mask = np.ones((len(windows), 1, 1, longest + text_tokens), np.bool_)
        place = np.empty(grid[0] * grid[1] * grid[2], np.int64)
        cos = np.empty((len(place), 1, head_width // 2), np.float32)
        sin = np.empty_like(cos)
        for i, (window, row) in enumerate(zip(windows, tokens, strict=True)):
            index[i, : len(row)] = row
            mask[i, 0, 0, len(row) : longest] = False
            place[row] = i * longest + np.arange(len(row))
            cos[row, 0], sin[row, 0] = video_tables(rope, _shape(window), text_tokens, head_width)
        tables |= {
            f"{name}.index": index,
            f"{name}.mask": mask,
            f"{name}.place": place,
            f"{name}.cos": cos,
            f"{name}.sin": sin,
        }
    return tables
