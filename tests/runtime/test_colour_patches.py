"""Colours through decode, restore's pixel stages and encode: within one level of what they were.

The patches are coded and decoded by the real encoders; the graphs stand where they stand in a run.
"""

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.conftest import write_clip

from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import output_pixel, to_rgb, video_pixel
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.frames import Frame, Matrix, PixelFormat, Plane
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.video_codecs import CODECS
from vr_trt.runtime.writer import Writer

PATCH, COLUMNS = 32, 8
# Red, green, blue in 0..1: greys, primaries and their mixtures, skin, sky, grass.
COLOURS = [(level, level, level) for level in (0.0, 0.1, 0.5, 0.9, 1.0)] + [
    *((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9)),
    *((0.9, 0.9, 0.1), (0.1, 0.9, 0.9), (0.9, 0.1, 0.9)),
    *((0.8, 0.6, 0.5), (0.4, 0.25, 0.2), (0.5, 0.7, 0.95), (0.3, 0.5, 0.2), (0.6, 0.6, 0.55)),
]
TAGS: dict[Matrix, tuple[int, int, int]] = {
    "bt601": (6, 6, 6),
    "bt709": (1, 1, 1),
    "bt2020": (9, 14, 9),
}
SIZE = COLUMNS * PATCH, -(-len(COLOURS) // COLUMNS) * PATCH


def patches(pixel: PixelFormat) -> tuple[Plane, Plane, Plane]:
    """The colours as planes of code values, by the standards' formulae in float64."""
    red_weight, blue_weight = {
        "bt601": (0.299, 0.114),
        "bt709": (0.2126, 0.0722),
        "bt2020": (0.2627, 0.0593),
    }[pixel.matrix]
    step = 2 ** (pixel.bits - 8)
    top = 2**pixel.bits - 1
    planes = [np.zeros(shape, pixel.dtype) for shape in pixel.plane_shapes(*SIZE)]
    for number, (red, green, blue) in enumerate(COLOURS):
        luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
        u, v = (blue - luma) / (2 * (1 - blue_weight)), (red - luma) / (2 * (1 - red_weight))
        codes = (luma * top, u * top + 128 * step, v * top + 128 * step)
        if not pixel.full_range:
            codes = (
                (16 + 219 * luma) * step,
                (128 + 224 * u) * step,
                (128 + 224 * v) * step,
            )
        row, column = divmod(number, COLUMNS)
        for plane, code, (across, down) in zip(
            planes, codes, ((1, 1), pixel.chroma, pixel.chroma), strict=True
        ):
            high, wide = PATCH // down, PATCH // across
            where = np.s_[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            plane[where] = round(min(code, top))
    return planes[0], planes[1], planes[2]


def seen(frame: Frame, pixel: PixelFormat) -> np.ndarray:
    """Levels of 255, red, green and blue, in the middle of each patch."""
    found = []
    for number in range(len(COLOURS)):
        row, column = divmod(number, COLUMNS)
        means = []
        for plane, (across, down) in zip(
            frame.planes, ((1, 1), pixel.chroma, pixel.chroma), strict=True
        ):
            high, wide = PATCH // down, PATCH // across
            middle = np.s_[
                row * high + high // 4 : row * high + 3 * high // 4,
                column * wide + wide // 4 : column * wide + 3 * wide // 4,
            ]
            means.append(plane[middle].astype(float).mean())
        found.append(to_rgb(pixel).astype(float) @ np.array([*means, 1.0]) * 255)
    return np.array(found)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1"])
def test_patches_keep_their_colours(
    tmp_path: Path, codec: str, matrix: Matrix, full: bool, bits: int
) -> None:
    name = "yuv420p" if bits == 8 else "yuv420p10le"
    source = write_clip(
        tmp_path / "in.mkv",
        codec="ffv1",
        pix_fmt=name,
        size=SIZE,
        frames=1,
        tags=(*TAGS[matrix], 2 if full else 1),
    )
    info = probe(source)
    assert (info.pixel.matrix, info.pixel.full_range) == (matrix, full)
    given = Frame(patches(info.pixel), 0, 1)
    pixel = video_pixel(output_pixel(info.pixel, *SIZE, image=False), CODECS[codec], bits)
    path = tmp_path / "out.mkv"
    crf = 4.0 if CODECS[codec].highest_crf else None
    spec = OutputSpec(path=path, width=SIZE[0], height=SIZE[1], pixel=pixel, codec=codec, crf=crf)
    one = Picture(width=SIZE[0], height=SIZE[1], pixel=info.pixel)
    other = Picture(width=SIZE[0], height=SIZE[1], pixel=pixel)
    stages = PixelStages(one, other, canvas(*SIZE, min(SIZE)), "none")
    with Writer(spec, info) as writer:
        for frame in stages.to_video(stages.to_model([given]), [given]):
            writer.write(frame)
    out = probe(path)
    assert (out.pixel.matrix, out.pixel.full_range, out.pixel.bits) == (matrix, full, bits)
    with Reader(path, out) as reader:
        (frame,) = reader
    true, before, after = np.array(COLOURS) * 255, seen(given, info.pixel), seen(frame, out.pixel)
    rounding = (
        2 if bits == 8 else 0.5
    )  # codes are whole numbers: what three halves of one do in RGB
    assert np.abs(before - true).max() < rounding
    assert np.abs(after - before).max() <= 1
