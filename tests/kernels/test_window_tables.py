"""The attention kernel's tables: every token where it belongs, every query in one tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_trt.kernels.rope import Rope, text_tables, video_tables
from vr_trt.kernels.window_tables import WindowSpec, packed_windows, rotary_rows
from vr_trt.kernels.windows import Grid, window_tables

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))


@settings(deadline=None, max_examples=60)
@given(GRIDS, st.booleans(), st.integers(0, 7))
def test_each_window_is_its_video_tokens_and_then_the_text(
    grid: Grid, shifted: bool, text: int
) -> None:
    packed, count = packed_windows(grid, shifted, text), grid[0] * grid[1] * grid[2]
    assert packed.index.dtype == packed.starts.dtype == np.int32
    assert packed.starts[-1] == len(packed.index) == count + packed.count * text
    rows = np.split(packed.index, packed.starts[1:-1])
    ours = sorted(tuple(row[: len(row) - text]) for row in rows)
    theirs = [tuple(row) for group in window_tables(grid, shifted).groups for row in group.index]
    assert ours == sorted(theirs)
    assert all(list(row[len(row) - text :]) == list(range(count, count + text)) for row in rows)


@settings(deadline=None, max_examples=60)
@given(GRIDS, st.booleans(), st.integers(1, 7), st.sampled_from([1, 16, 128]), st.booleans())
def test_every_query_is_in_one_tile_and_no_tile_is_idle(
    grid: Grid, shifted: bool, text: int, block: int, text_queries: bool
) -> None:
    packed = packed_windows(grid, shifted, text)
    tiles = packed.tiles(block, 0 if text_queries else text)
    asked = []
    for start, first, queries, keys, window in tiles:
        assert (start, start + keys) == tuple(packed.starts[window : window + 2])
        assert first % block == 0 and first < queries == keys - (0 if text_queries else text)
        asked += list(range(start + first, start + min(first + block, queries)))
    wanted = np.arange(len(packed.index))
    if not text_queries:
        wanted = wanted[packed.index < grid[0] * grid[1] * grid[2]]
    assert sorted(asked) == list(wanted)
    assert (np.diff(tiles[:, 3]) <= 0).all()  # long windows first
    neighbours = tiles[1:, 4] == tiles[:-1, 4]
    assert neighbours.sum() == len(tiles) - packed.count  # and each in one piece


@pytest.mark.parametrize("rope", ["language", "pixel"])
@pytest.mark.parametrize("shifted", [False, True])
def test_angles_lie_by_row_number(rope: Rope, shifted: bool) -> None:
    grid = (5, 30, 24)
    spec = WindowSpec(grid=grid, shifted=shifted, text_tokens=3, head_width=32, rope=rope)
    assert spec.video_tokens == 3600
    ours = rotary_rows(spec)
    for table, text in zip(ours, text_tables(rope, 3, 32), strict=True):
        assert table.shape == (3603, 16) and table.dtype == np.float32
        np.testing.assert_array_equal(table[3600:], text)
    for group in window_tables(grid, shifted).groups:
        for table, wanted in zip(ours, video_tables(rope, group.shape, 3, 32), strict=True):
            for row in group.index:
                np.testing.assert_array_equal(table[row], wanted)
