from dataclasses import replace

import numpy as np
import pytest

from vr_trt.runtime.colour import from_rgb, limits, output_pixel, to_rgb
from vr_trt.runtime.frames import UNSPECIFIED, Matrix, PixelFormat

LIMITED = PixelFormat(
    bits=8, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
)
RGB = PixelFormat(
    bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
)
GRAY = replace(LIMITED, layout="gray", chroma=(1, 1))
ALL_FORMATS = [
    replace(LIMITED, bits=bits, matrix=matrix, full_range=full)
    for bits in (8, 10, 12, 16)
    for matrix in ("bt601", "bt709", "bt2020")
    for full in (False, True)
] + [replace(RGB, bits=bits, full_range=full) for bits in (8, 16) for full in (False, True)]


def codes(pixel: PixelFormat, *rgb: float) -> list[int]:
    matrix = from_rgb(pixel)
    return [int(code) for code in np.round(matrix[:, :3] @ np.array(rgb) + matrix[:, 3])]


# Colour-bar codes as broadcast tables and JPEG implementations print them.
@pytest.mark.parametrize(
    ("matrix", "full", "rgb", "expected"),
    [
        ("bt709", False, (1, 0, 0), [63, 102, 240]),
        ("bt709", False, (0, 1, 0), [173, 42, 26]),
        ("bt709", False, (0, 0, 1), [32, 240, 118]),
        ("bt709", False, (1, 1, 1), [235, 128, 128]),
        ("bt709", False, (0, 0, 0), [16, 128, 128]),
        ("bt601", False, (1, 0, 0), [81, 90, 240]),
        ("bt601", False, (0, 1, 0), [145, 54, 34]),
        ("bt601", False, (0, 0, 1), [41, 240, 110]),
        ("bt601", True, (0, 1, 0), [150, 44, 21]),
        ("bt601", True, (1, 1, 1), [255, 128, 128]),
    ],
)
def test_known_patches(
    matrix: Matrix, full: bool, rgb: tuple[int, int, int], expected: list[int]
) -> None:
    assert codes(replace(LIMITED, matrix=matrix, full_range=full), *rgb) == expected


def test_known_patch_in_ten_bits() -> None:
    assert codes(replace(LIMITED, bits=10, matrix="bt2020"), 1, 0, 0) == [294, 387, 960]


@pytest.mark.parametrize("pixel", ALL_FORMATS, ids=str)
def test_every_code_survives_the_way_to_rgb_and_back(pixel: PixelFormat) -> None:
    steps = np.unique(np.linspace(0, 2**pixel.bits - 1, 256).round())
    corners = np.array(np.meshgrid(steps, steps[::51], steps[::51])).reshape(3, -1)
    there, back = to_rgb(pixel), from_rgb(pixel)
    rgb = there[:, :3] @ corners.astype(np.float32) + there[:, 3:]
    again = back[:, :3] @ rgb + back[:, 3:]
    assert there.dtype == back.dtype == np.float32
    assert np.array_equal(np.round(again), corners)


@pytest.mark.parametrize("pixel", ALL_FORMATS, ids=str)
def test_white_and_black(pixel: PixelFormat) -> None:
    low, high = (0, 2**pixel.bits - 1) if pixel.full_range else (16, 235)
    scale = 1 if pixel.full_range else 2 ** (pixel.bits - 8)
    chroma = (pixel.neutral,) * 2
    for code, value in ((low * scale, 0.0), (high * scale, 1.0)):
        planes = (code, code, code) if pixel.layout == "rgb" else (code, *chroma)
        rgb = to_rgb(pixel)[:, :3] @ np.array(planes) + to_rgb(pixel)[:, 3]
        assert rgb == pytest.approx([value] * 3, abs=1e-4)


def test_grey_ignores_its_filler_chroma_and_writes_the_neutral_code() -> None:
    rgb = to_rgb(GRAY)[:, :3] @ np.array([235, 7, 200]) + to_rgb(GRAY)[:, 3]
    assert rgb == pytest.approx([1, 1, 1], abs=1e-6)
    assert codes(GRAY, 1, 0, 0) == [63, 128, 128]


def test_limits_leave_out_only_the_reserved_codes() -> None:
    assert limits(LIMITED).tolist() == [1, 254]
    assert limits(replace(LIMITED, bits=10)).tolist() == [4, 1019]
    assert limits(replace(LIMITED, full_range=True)).tolist() == [0, 255]


def test_video_keeps_matrix_range_siting_and_tags() -> None:
    source = replace(
        LIMITED, matrix="bt601", full_range=True, siting="center", primaries=5, transfer=6
    )
    assert output_pixel(source, 64, 48, image=False) == source


def test_video_is_subsampled_only_at_even_sizes() -> None:
    full = replace(LIMITED, chroma=(1, 1))
    assert output_pixel(full, 64, 48, image=False).chroma == (2, 2)
    assert output_pixel(LIMITED, 63, 48, image=False).chroma == (1, 1)
    assert output_pixel(LIMITED, 64, 47, image=False).chroma == (1, 1)


@pytest.mark.parametrize(("bits", "written"), [(8, 8), (10, 10), (12, 10), (16, 10)])
def test_video_has_at_most_ten_bits(bits: int, written: int) -> None:
    assert output_pixel(replace(LIMITED, bits=bits), 64, 48, image=False).bits == written


def test_rgb_becomes_bt709_limited_and_grey_limited() -> None:
    rgb = output_pixel(RGB, 64, 48, image=False)
    gray = output_pixel(replace(GRAY, full_range=True), 64, 48, image=False)
    assert (rgb.layout, rgb.matrix, rgb.full_range) == ("yuv", "bt709", False)
    assert (gray.layout, gray.full_range) == ("yuv", False)


@pytest.mark.parametrize(
    ("matrix", "tags"), [("bt601", (6, 6)), ("bt709", (1, 1)), ("bt2020", (9, 14))]
)
def test_untagged_video_gets_the_usual_tags(matrix: Matrix, tags: tuple[int, int]) -> None:
    assert (LIMITED.primaries, LIMITED.transfer) == (UNSPECIFIED, UNSPECIFIED)
    pixel = output_pixel(replace(LIMITED, matrix=matrix), 64, 48, image=False)
    assert (pixel.primaries, pixel.transfer) == tags


def test_turned_siting_is_not_written() -> None:
    turned = replace(LIMITED, siting="top")
    assert output_pixel(turned, 64, 48, image=False).siting == "left"


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".png", ("rgb", 16, (1, 1), "rgb", True)),
        (".tiff", ("rgb", 16, (1, 1), "rgb", True)),
        (".jpg", ("yuv", 8, (1, 1), "bt601", True)),
        (".webp", ("yuv", 8, (2, 2), "bt601", False)),
    ],
)
def test_images_go_by_their_suffix(suffix: str, expected: tuple[object, ...]) -> None:
    pixel = output_pixel(replace(LIMITED, bits=10), 17, 33, image=True, suffix=suffix)
    found = (pixel.layout, pixel.bits, pixel.chroma, pixel.matrix, pixel.full_range)
    assert found == expected
