import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.runtime.frames import PixelFormat, Siting
from vr_trt.runtime.packing import packing_of
from vr_trt.runtime.tags import read_matrix, read_range, turn_siting, usual_siting


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), "bt709"),
        ((1280, 480), "bt709"),
        ((720, 577), "bt709"),
        ((720, 576), "bt601"),
        ((1279, 576), "bt601"),
    ],
)
def test_an_untagged_matrix_is_guessed_by_size_and_said(
    size: tuple[int, int], expected: str
) -> None:
    matrix, note = read_matrix(2, size, image=False)
    assert matrix == expected
    assert note is not None and expected in note


def test_tagged_matrices_need_no_guess() -> None:
    assert [read_matrix(code, (64, 48), False) for code in (1, 5, 6, 9)] == [
        ("bt709", None),
        ("bt601", None),
        ("bt601", None),
        ("bt2020", None),
    ]
    assert read_matrix(8, (64, 48), False) == (None, None)  # YCgCo
    assert read_matrix(2, (4000, 3000), image=True)[0] == "bt601"


@pytest.mark.parametrize(
    ("code", "name", "image", "full", "guessed"),
    [
        (0, "yuv420p", False, False, True),
        (0, "yuvj420p", False, True, False),
        (1, "yuv420p", False, False, False),
        (2, "yuv420p", False, True, False),
        (0, "rgb24", False, True, False),
        (0, "gray", True, True, False),
        (0, "gray", False, False, True),
    ],
)
def test_range(code: int, name: str, image: bool, full: bool, guessed: bool) -> None:
    packing = packing_of(name)
    assert packing is not None
    found, note = read_range(code, name, packing, image)
    assert (found, note is not None) == (full, guessed)


def test_siting_goes_by_codec_and_transfer() -> None:
    assert usual_siting("h264", 1, image=False) == "left"
    assert usual_siting("hevc", 16, image=False) == "topleft"
    assert usual_siting("mpeg1video", 1, image=False) == "center"
    assert usual_siting("mjpeg", 1, image=True) == "center"


@given(
    st.sampled_from(["left", "center", "topleft", "bottom", "bottomright"]),
    st.sampled_from([0, 90, 180, 270]),
    st.booleans(),
    st.integers(2, 9).map(lambda half: 2 * half),
    st.integers(2, 9).map(lambda half: 2 * half),
)
def test_chroma_stays_where_it_is_in_the_picture(
    siting: Siting, rotation: int, mirrored: bool, width: int, height: int
) -> None:
    """The places of all chroma samples, turned by hand, are those of the turned siting."""
    x, y = places(siting, width, height)
    for _ in range(rotation // 90):
        x, y = height - 1 - y, x
        width, height = height, width
    if mirrored:
        x = width - 1 - x
    size = (height, width) if rotation % 180 else (width, height)
    expected = places(turn_siting(siting, rotation, mirrored, size), width, height)
    assert set(zip(x, y, strict=True)) == set(zip(*expected, strict=True))


def places(
    siting: Siting, width: int, height: int
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    pixel = PixelFormat(
        bits=8, layout="yuv", chroma=(2, 2), matrix="bt601", full_range=False, siting=siting
    )
    right, down = pixel.chroma_offset
    columns, rows = np.meshgrid(np.arange(0, width, 2) + right, np.arange(0, height, 2) + down)
    return columns.ravel(), rows.ravel()
