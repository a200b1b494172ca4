import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.kernels.resample import (
    AxisSiting,
    chroma_down_matrix,
    chroma_up_matrix,
    resize_matrix,
)

SITINGS: list[AxisSiting] = ["co-sited", "center"]
HALF_BAND = np.array([-1, 0, 9, 16, 9, 0, -1]) / 32


@pytest.mark.parametrize(
    ("source", "target"),
    [(21, 42), (37, 74), (180, 360), (33, 17), (17, 33), (100, 7), (7, 100), (64, 64)]
    + [(1, 9), (9, 1), (1, 1), (2, 1), (1, 2), (3, 2), (255, 256), (853, 480), (270, 719)],
)
def test_resize_matrix_is_torchs_antialiased_bicubic(source: int, target: int) -> None:
    # The images of the unit vectors are the matrix's columns; float64, so that torch is exact too.
    columns = torch.eye(source, dtype=torch.float64)[None, None]
    size = (target, source)
    expected = F.interpolate(columns, size, mode="bicubic", antialias=True, align_corners=False)
    matrix = resize_matrix(source, target, target)
    assert matrix.dtype == np.float32
    assert matrix.shape == (target, source)
    np.testing.assert_allclose(matrix, expected[0, 0].numpy(), rtol=0, atol=1e-6)


def test_padding_repeats_the_last_row() -> None:
    matrix = resize_matrix(9, 21, 32)
    assert matrix.shape == (32, 9)
    np.testing.assert_array_equal(matrix[:21], resize_matrix(9, 21, 21))
    np.testing.assert_array_equal(matrix[21:], np.repeat(matrix[20:21], 11, axis=0))


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 8, 7)])
def test_impossible_resizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot resize"):
        resize_matrix(*sizes)


@given(luma=st.integers(1, 67), factor=st.sampled_from([1, 2, 4]), siting=st.sampled_from(SITINGS))
def test_chroma_matrices_keep_a_flat_colour(luma: int, factor: int, siting: AxisSiting) -> None:
    chroma = -(-luma // factor)
    up = chroma_up_matrix(luma, chroma, factor, siting)
    down = chroma_down_matrix(luma, chroma, factor, siting)
    assert up.shape == (luma, chroma)
    assert down.shape == (chroma, luma)
    np.testing.assert_allclose(up.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(down.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("luma", [16, 17])
@pytest.mark.parametrize(("siting", "first"), [("co-sited", 0.0), ("center", 0.5)])
def test_a_ramp_stays_where_it_is(luma: int, siting: AxisSiting, first: float) -> None:
    # A wrong siting moves colour by half a pixel, which a ramp shows as an offset.
    chroma = -(-luma // 2)
    ramp = np.arange(luma, dtype=np.float32)
    positions = first + 2 * np.arange(chroma, dtype=np.float32)
    inner = slice(4, -5)
    up = chroma_up_matrix(luma, chroma, 2, siting) @ positions
    np.testing.assert_allclose(up[inner], ramp[inner], atol=1e-5)
    down = chroma_down_matrix(luma, chroma, 2, siting) @ ramp
    np.testing.assert_allclose(down[2:-2], positions[2:-2], atol=1e-5)


def test_co_sited_samples_pass_upsampling_unchanged() -> None:
    up = chroma_up_matrix(19, 10, 2, "co-sited")
    np.testing.assert_array_equal(up[::2], np.eye(10))


def test_co_sited_reduction_is_the_half_band_filter() -> None:
    down = chroma_down_matrix(20, 10, 2, "co-sited")
    np.testing.assert_allclose(down[4, 5:12], HALF_BAND, atol=1e-7)
    assert np.count_nonzero(np.abs(down[4]) > 1e-7) == 5
    # What would lie left of the picture goes to its first sample.
    np.testing.assert_allclose(down[0, :4], [24 / 32, 9 / 32, 0, -1 / 32], atol=1e-7)


def test_factor_one_is_the_identity() -> None:
    for siting in SITINGS:
        np.testing.assert_array_equal(chroma_up_matrix(5, 5, 1, siting), np.eye(5))
        np.testing.assert_array_equal(chroma_down_matrix(5, 5, 1, siting), np.eye(5))


def test_chroma_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="7 chroma samples do not belong to 15"):
        chroma_up_matrix(15, 7, 2, "center")
    with pytest.raises(ValueError, match="do not belong"):
        chroma_down_matrix(15, 9, 2, "center")
