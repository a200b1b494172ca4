import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import CELL, Canvas, canvas

sides = st.integers(1, 9000)


@given(width=sides, height=sides, short_side=st.integers(1, 2160))
def test_every_canvas_holds_its_picture(width: int, height: int, short_side: int) -> None:
    c = canvas(width, height, short_side)
    for out, padded in ((c.out_w, c.padded_w), (c.out_h, c.padded_h)):
        assert out == 1 or out % 2 == 0
        assert padded % CELL == 0
        assert 0 <= padded - out < CELL
    # Each side is within the rounding to even numbers of the exactly scaled one.
    scale = short_side / min(width, height)
    assert abs(c.out_w - width * scale) <= 1.0 + 1e-6 * c.out_w
    assert abs(c.out_h - height * scale) <= 1.0 + 1e-6 * c.out_h
    assert min(c.out_w, c.out_h) == short_side + short_side % 2 - (short_side == 1)


@given(width=sides, height=sides, half=st.integers(1, 1080))
def test_turning_the_picture_turns_the_canvas(width: int, height: int, half: int) -> None:
    c = canvas(width, height, 2 * half)
    turned = Canvas(out_w=c.out_h, out_h=c.out_w, padded_w=c.padded_h, padded_h=c.padded_w)
    assert canvas(height, width, 2 * half) == turned


@pytest.mark.parametrize(
    ("source", "short_side", "expected"),
    [
        ((640, 360), 720, (1280, 720, 1280, 720)),
        ((1920, 1080), 1080, (1920, 1080, 1920, 1088)),
        ((320, 180), 360, (640, 360, 640, 368)),
        ((720, 576), 480, (600, 480, 608, 480)),
        ((1, 1), 360, (360, 360, 368, 368)),
        ((2, 2), 360, (360, 360, 368, 368)),
        ((17, 33), 360, (360, 698, 368, 704)),
        ((8000, 1000), 360, (2880, 360, 2880, 368)),
        ((1000, 1), 1, (1000, 1, 1008, 16)),
    ],
)
def test_known_canvases(
    source: tuple[int, int], short_side: int, expected: tuple[int, int, int, int]
) -> None:
    c = canvas(*source, short_side)
    assert (c.out_w, c.out_h, c.padded_w, c.padded_h) == expected


@pytest.mark.parametrize("sizes", [(0, 5, 360), (5, 0, 360), (5, 5, 0)])
def test_impossible_sizes_are_usage_errors(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        canvas(*sizes)
