"""Matrices as bands and as blocks of rows: nothing is lost, nothing points outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_trt.kernels.bands import bands, own_columns, row_blocks, smoothing_bands
from vr_trt.kernels.resample import chroma_down_matrix, chroma_up_matrix, resize_matrix


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """A resampling matrix [to, from], and how many inputs belong to an output, 0 if not whole."""
    size = draw(st.integers(1, 60))
    kind = draw(st.sampled_from(["resize", "up", "down", "mirrored"]))
    if kind == "resize":
        target = draw(st.integers(1, 60))
        return resize_matrix(size, target, target + draw(st.integers(0, 15))), 0
    factor = draw(st.sampled_from([1, 2, 4]))
    siting = draw(st.sampled_from(["center", "co-sited"]))
    make = chroma_up_matrix if kind == "up" else chroma_down_matrix
    matrix = make(size, -(-size // factor), factor, siting)  # type: ignore[arg-type]
    if kind == "mirrored":
        return matrix[::-1, ::-1], 0
    return matrix, factor if kind == "down" else 0


@settings(max_examples=150, deadline=None)
@given(made=matrices())
def test_bands_are_the_matrix(made: tuple[np.ndarray, int]) -> None:
    matrix, _ = made
    table = bands(matrix)
    np.testing.assert_array_equal(table.matrix(), matrix)
    assert (table.first >= 0).all() and (table.first + table.taps <= matrix.shape[1]).all()
    assert (np.diff(table.first) >= 0).all()


@settings(max_examples=150, deadline=None)
@given(made=matrices(), rows=st.sampled_from([1, 2, 8, 16]))
def test_blocks_are_the_matrix_and_hold_the_inputs_under_them(
    made: tuple[np.ndarray, int], rows: int
) -> None:
    matrix, factor = made
    outputs, inputs = matrix.shape
    blocks = row_blocks(bands(matrix), rows, factor)
    assert (blocks.blocks, blocks.rows) == (-(-outputs // rows), rows)
    dense = np.zeros((blocks.blocks * rows, inputs), np.float32)
    for block, first in enumerate(blocks.first):
        assert 0 <= first and first + blocks.span <= inputs
        here = slice(first, first + blocks.span)
        dense[block * rows : (block + 1) * rows, here] = blocks.weights[block].T
        if factor:
            assert first <= factor * rows * block
            assert first + blocks.span >= min(factor * rows * (block + 1), inputs)
    np.testing.assert_array_equal(dense[:outputs], matrix)
    assert not dense[outputs:].any()


@settings(max_examples=150, deadline=None)
@given(made=matrices(), span=st.sampled_from([16, 32, 64]), step=st.sampled_from([1, 8]))
def test_a_tiles_inputs_lie_within_its_span(
    made: tuple[np.ndarray, int], span: int, step: int
) -> None:
    matrix, factor = made
    table = bands(matrix)
    own = own_columns(table, span, step, factor)
    assert own % step == 0
    if not own:
        assert table.taps > span or span < 2 * table.inputs
    for start in range(0, table.outputs, own or table.outputs + 1):
        if own:
            end = min(start + own, table.outputs)
            assert table.first[end - 1] + table.taps - table.first[start] <= span
            assert min(factor * end, table.inputs) - table.first[start] <= span


def test_the_whole_fits_in_one_tile_if_the_span_is_as_wide() -> None:
    assert own_columns(bands(resize_matrix(30, 40, 48)), 32, 16) == 48
    assert own_columns(bands(resize_matrix(30, 40, 48)), 8, 16) == 0


def test_smoothing_is_a_tent_of_exact_weights() -> None:
    table = smoothing_bands(200)
    assert table.taps == 63
    tent = (32 - np.abs(np.arange(-31, 32))) / 1024
    np.testing.assert_array_equal(table.weights[:, 100], tent.astype(np.float32))
    np.testing.assert_array_equal(table.weights.sum(0, dtype=np.float64), np.ones(200))
    assert smoothing_bands(1).matrix() == 1


def test_a_matrix_with_an_empty_row_is_refused() -> None:
    with pytest.raises(ValueError, match="empty row"):
        bands(np.array([[1, 0], [0, 0]], np.float32))
