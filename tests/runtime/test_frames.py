import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.runtime.frames import PixelFormat, Siting

YUV420 = PixelFormat(
    bits=8, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 7},
        {"bits": 17},
        {"chroma": (3, 1)},
        {"matrix": "rgb"},
        {"layout": "rgb"},
        {"layout": "gray"},  # with subsampled chroma
    ],
)
def test_contradictions_are_refused(change: dict[str, object]) -> None:
    fields = {name: getattr(YUV420, name) for name in YUV420.__slots__}
    with pytest.raises(ValueError):
        PixelFormat(**{**fields, **change})


@pytest.mark.parametrize(
    ("siting", "chroma", "offset"),
    [
        ("left", (2, 2), (0.0, 0.5)),
        ("center", (2, 2), (0.5, 0.5)),
        ("topleft", (2, 2), (0.0, 0.0)),
        ("left", (2, 1), (0.0, 0.0)),
        ("center", (4, 1), (1.5, 0.0)),
        ("top", (2, 2), (0.5, 0.0)),
        ("bottomright", (2, 2), (1.0, 1.0)),
        ("center", (1, 1), (0.0, 0.0)),
    ],
)
def test_chroma_offset_in_luma_pixels(
    siting: Siting, chroma: tuple[int, int], offset: tuple[float, float]
) -> None:
    pixel = PixelFormat(
        bits=8, layout="yuv", chroma=chroma, matrix="bt601", full_range=True, siting=siting
    )
    assert pixel.chroma_offset == offset


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_chroma_planes_cover_every_pixel_and_no_more(width: int, height: int) -> None:
    luma, u, v = YUV420.plane_shapes(width, height)
    assert luma == (height, width)
    assert u == v
    assert height <= 2 * u[0] < height + 2
    assert width <= 2 * u[1] < width + 2


def test_types_follow_the_depth() -> None:
    ten = PixelFormat(
        bits=10, layout="yuv", chroma=(1, 1), matrix="bt2020", full_range=False, siting="left"
    )
    assert (YUV420.dtype.name, YUV420.neutral, YUV420.subsampled) == ("uint8", 128, True)
    assert (ten.dtype.name, ten.neutral, ten.subsampled) == ("uint16", 512, False)
