"""Rotary tables against the formulas of the specification (§4.4), written out plainly."""

from math import cos, pi, sin

import numpy as np
import pytest

from vr_trt.kernels.rope import Rope, frequencies, text_tables, video_tables

# 58 text tokens are the published prompt's; 64 and 44 have an odd share of a head per axis.
HEAD_WIDTHS = [32, 44, 64, 128]
SHAPES = [(1, 1, 1), (2, 3, 4), (3, 1, 5), (1, 15, 27), (8, 2, 1)]
# fp32 holds an angle of 402 rad to 2e-5, one of 60 rad to 4e-6.
TOLERANCE = {"language": 1e-5, "pixel": 8e-5}


def language_angle(pair: int, head_width: int, position: tuple[int, int, int]) -> float:
    """The angle of one pair of the 3B's head at (t, h, w), t counted after the text."""
    axis = head_width // 3
    per_axis = axis // 2
    if pair >= 3 * per_axis:
        return 0.0
    return float(position[pair // per_axis] * 10000.0 ** (-2 * (pair % per_axis) / axis))


def pixel_angle(
    pair: int, head_width: int, position: tuple[int, int, int], shape: tuple[int, int, int]
) -> float:
    """The angle of one pair of the 7B's head: -1..1 along each axis of the window."""
    per_axis = head_width // 2 // 3 // 2
    if pair >= 3 * per_axis:
        return 0.0
    axis, j = divmod(pair, per_axis)
    last = shape[axis] - 1
    place = -1 + 2 * position[axis] / last if last else -1.0
    step = (128 - 1) / (per_axis - 1) if per_axis > 1 else 0.0
    return float(place * pi * (1 + j * step))


@pytest.mark.parametrize("head_width", HEAD_WIDTHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rope", ["language", "pixel"])
def test_every_token_of_a_window(rope: Rope, shape: tuple[int, int, int], head_width: int) -> None:
    text = 58
    ours = video_tables(rope, shape, text, head_width)
    assert [table.dtype for table in ours] == [np.float32] * 2
    wanted = []
    for t, h, w in np.ndindex(*shape):
        for pair in range(head_width // 2):
            if rope == "language":
                wanted.append(language_angle(pair, head_width, (text + t, h, w)))
            else:
                wanted.append(pixel_angle(pair, head_width, (t, h, w), shape))
    angles = np.reshape(wanted, (-1, head_width // 2))
    for table, function in zip(ours, (cos, sin), strict=True):
        assert table.shape == angles.shape
        np.testing.assert_allclose(table, np.vectorize(function)(angles), atol=TOLERANCE[rope])


@pytest.mark.parametrize(
    ("rope", "head_width", "pairs"),
    [("language", 128, 63), ("language", 32, 15), ("pixel", 128, 30), ("pixel", 32, 6)],
)
def test_how_many_pairs_turn(rope: Rope, head_width: int, pairs: int) -> None:
    assert 3 * len(frequencies(rope, head_width)) == pairs
    _, sines = video_tables(rope, (3, 4, 5), 7, head_width)
    turning = np.abs(sines).max(0) > 0
    assert turning[:pairs].all() and not turning[pairs:].any()


def test_frequencies_of_the_published_heads() -> None:
    language, pixel = frequencies("language", 128), frequencies("pixel", 128)
    assert language.dtype == pixel.dtype == np.float32
    np.testing.assert_allclose(language, [10000.0 ** (-2 * j / 42) for j in range(21)], rtol=1e-6)
    np.testing.assert_allclose(pixel, [pi * (1 + 127 * j / 9) for j in range(10)], rtol=1e-6)


@pytest.mark.parametrize("head_width", HEAD_WIDTHS)
def test_text_turns_alike_on_all_axes_in_the_3b(head_width: int) -> None:
    cosines, sines = text_tables("language", 7, head_width)
    assert cosines.shape == sines.shape == (7, head_width // 2)
    for n in range(7):
        for pair in range(head_width // 2):
            angle = language_angle(pair, head_width, (n, n, n))
            assert cosines[n, pair] == pytest.approx(cos(angle), abs=1e-6)
            assert sines[n, pair] == pytest.approx(sin(angle), abs=1e-6)


def test_text_does_not_turn_in_the_7b() -> None:
    cosines, sines = text_tables("pixel", 58, 128)
    assert (cosines == 1).all() and (sines == 0).all()


def test_time_starts_after_the_text() -> None:
    early, late = (video_tables("language", (2, 1, 1), text, 128) for text in (1, 0))
    np.testing.assert_array_equal(early[1][0], late[1][1])


def test_a_single_position_is_minus_one() -> None:
    """As in a window that is one row high: not 0, the middle."""
    flat, tall = video_tables("pixel", (1, 1, 1), 7, 128), video_tables("pixel", (2, 2, 2), 7, 128)
    np.testing.assert_array_equal(flat[1][0], tall[1][0])
    assert np.abs(flat[1][0]).max() > 0.1
