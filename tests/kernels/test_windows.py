"""Windows: the reference's lists, and what must hold for every grid."""

import json
import math
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_trt.kernels.rope import Rope, video_tables
from vr_trt.kernels.windows import (
    Grid,
    any_size_tables,
    axis_spans,
    partition,
    window_size,
    window_tables,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/windows.json").read_text())["cases"]
METHODS = {False: "720pwin_by_size_bysize", True: "720pswin_by_size_bysize"}
ODD_GRIDS = [(1, 1, 1), (33, 1, 1), (5, 1, 300), (3, 211, 2), (7, 13, 11), (31, 3, 5), (2, 2, 2)]


@st.composite
def grids(draw: st.DrawFn, most: int = 6000) -> Grid:
    """Any grid of at most `most` tokens, panoramas and pillars among them."""
    frames = draw(st.integers(1, 40))
    rows = draw(st.integers(1, min(240, most // frames)))
    return frames, rows, draw(st.integers(1, min(240, max(1, most // frames // rows))))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: "x".join(map(str, case["size"])))
@pytest.mark.parametrize("shifted", [False, True])
def test_window_lists_of_the_reference(
    case: dict[str, list[list[list[int]]]], shifted: bool
) -> None:
    t, h, w = (int(str(n)) for n in case["size"])
    ours = [[list(span) for span in window] for window in partition((t, h, w), shifted)]
    assert ours == case[METHODS[shifted]]


@pytest.mark.parametrize("size", [(45, 80), (67, 120), (68, 120), (90, 160), (134, 240)])
def test_wide_screen_windows_are_those_of_720p(size: tuple[int, int]) -> None:
    assert window_size((6, *size)) == (2, 15, 27)


@given(st.integers(1, 60), st.integers(1, 300), st.integers(1, 300))
def test_window_sizes_are_the_formula_s(frames: int, rows: int, columns: int) -> None:
    scale = math.sqrt((45 * 80) / (rows * columns))
    sizes = (round(rows * scale), round(columns * scale))
    wanted = (math.ceil(min(frames, 30) / 4), *(math.ceil(size / 3) for size in sizes))
    assert window_size((frames, rows, columns)) == wanted


def test_windows_grow_no_longer_than_30_frames_allow() -> None:
    assert [window_size((t, 45, 80))[0] for t in (1, 4, 5, 29, 30, 31, 200)] == [
        1,
        1,
        2,
        8,
        8,
        8,
        8,
    ]


@pytest.mark.parametrize(
    ("grid", "shifted", "count", "shapes"),
    [
        ((1, 45, 80), False, 9, 2),
        ((1, 45, 80), True, 16, 6),
        ((6, 45, 80), True, 64, 12),
        ((12, 45, 80), True, 80, 18),
        ((1, 67, 120), False, 25, 4),
        ((6, 68, 120), True, 120, 18),
    ],
)
def test_counts_of_the_specification(grid: Grid, shifted: bool, count: int, shapes: int) -> None:
    tables = window_tables(grid, shifted)
    assert (tables.count, len(tables.groups)) == (count, shapes)


@given(st.integers(1, 500), st.integers(1, 60))
def test_plain_cuts_are_multiples_of_the_window(length: int, window: int) -> None:
    assert [a for a, _ in axis_spans(length, window, False)] == list(range(0, length, window))


@given(st.integers(1, 500), st.integers(1, 60))
def test_shifted_cuts_lie_half_a_window_off(length: int, window: int) -> None:
    spans = axis_spans(length, window, True)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(a < b for a, b in spans)
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    if window >= length:
        assert spans == [(0, length)]
    else:
        assert spans[0][1] == max(window // 2, 1)
        assert {b - a for a, b in spans[1:-1]} <= {window}
        assert spans[-1][1] - spans[-1][0] <= window


def check_partition(grid: Grid, shifted: bool) -> None:
    frames, rows, columns = grid
    count = frames * rows * columns
    tables = window_tables(grid, shifted)
    windows = partition(grid, shifted)
    shapes = Counter(tuple(b - a for a, b in window) for window in windows)
    assert {group.shape: len(group.index) for group in tables.groups} == shapes
    order = np.concatenate([group.index.reshape(-1) for group in tables.groups])
    assert np.array_equal(np.sort(order), np.arange(count))  # every token in exactly one window
    assert np.array_equal(order[tables.place], np.arange(count))  # and back
    for group in tables.groups:
        t, rest = np.divmod(group.index, rows * columns)
        h, w = np.divmod(rest, columns)
        inside = np.stack([t, h, w], -1)
        inside = inside - inside[:, :1]  # from the window's first token, row-major
        assert np.array_equal(
            inside, np.broadcast_to(list(product(*map(range, group.shape))), inside.shape)
        )


@pytest.mark.parametrize("grid", ODD_GRIDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_odd_grids_are_partitioned(grid: Grid, shifted: bool) -> None:
    check_partition(grid, shifted)


@settings(deadline=None, max_examples=60)
@given(grids(), st.booleans())
def test_every_grid_is_partitioned(grid: Grid, shifted: bool) -> None:
    check_partition(grid, shifted)


def check_any_size(grid: Grid, text: int, head_width: int, rope: Rope) -> None:
    """The tables that a graph takes say the same as the groups that another has inside."""
    tables = any_size_tables(grid, text, head_width, rope)
    assert list(tables) == [
        f"{part}.{name}"
        for part in ("plain", "shifted")
        for name in ("index", "mask", "place", "cos", "sin")
    ]
    count = grid[0] * grid[1] * grid[2]
    for part, shifted in (("plain", False), ("shifted", True)):
        index, mask, place, cos, sin = (
            tables[f"{part}.{name}"] for name in ("index", "mask", "place", "cos", "sin")
        )
        groups = window_tables(grid, shifted).groups
        longest = max(group.index.shape[1] for group in groups)
        windows = sum(len(group.index) for group in groups)
        assert index.dtype == place.dtype == np.int64 and mask.dtype == np.bool_
        assert index.shape == (windows, longest)
        assert mask.shape == (windows, 1, 1, longest + text)
        assert cos.shape == sin.shape == (count, 1, head_width // 2)
        assert cos.dtype == sin.dtype == np.float32
        real = mask[:, 0, 0, :longest].astype(np.bool_)
        assert mask[:, 0, 0, longest:].all()  # the text is real in every window
        assert not index[~real].any()
        ours = Counter(tuple(row[keep].tolist()) for row, keep in zip(index, real, strict=True))
        theirs = Counter(tuple(row.tolist()) for group in groups for row in group.index)
        assert ours == theirs
        assert np.array_equal(index.reshape(-1)[place], np.arange(count))
        assert real.reshape(-1)[place].all()
        for group in groups:
            for wanted, table in zip(
                video_tables(rope, group.shape, text, head_width), (cos, sin), strict=True
            ):
                for row in group.index:
                    assert np.array_equal(table[row, 0], wanted)


@pytest.mark.parametrize("grid", [(1, 1, 1), (6, 9, 16), (2, 1, 200), (33, 2, 3), (3, 7, 5)])
@pytest.mark.parametrize("rope", ["language", "pixel"])
def test_tables_as_inputs_equal_the_groups(grid: Grid, rope: Rope) -> None:
    check_any_size(grid, 5, 32, rope)


@settings(deadline=None, max_examples=25)
@given(grids(most=1500), st.integers(0, 9), st.sampled_from(["language", "pixel"]))
def test_tables_as_inputs_equal_the_groups_of_every_grid(grid: Grid, text: int, rope: Rope) -> None:
    check_any_size(grid, text, 12, rope)
