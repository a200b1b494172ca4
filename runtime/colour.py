"""Colour as numbers: matrices between code values and RGB, legal codes, the output's format.

Source: ITU-R BT.601, BT.709, BT.2020 (luma weights), ITU-T H.273 §8.3 (quantisation).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.frames import UNSPECIFIED, Matrix, PixelFormat
from vr_trt.runtime.video_codecs import Codec

_LUMA = {  # weights of red and blue; green has the rest
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
# H.273 primaries and transfer that belong to a matrix where the input names none.
_USUAL_TAGS: dict[Matrix, tuple[int, int]] = {
    "bt601": (6, 6),
    "bt709": (1, 1),
    "bt2020": (9, 14),
}


def from_rgb(pixel: PixelFormat) -> NDArray[np.float32]:
    """Matrix [3, 4]: code values of the three planes = M[:, :3] · (r, g, b in 0..1) + M[:, 3]."""
    return _from_rgb(pixel).astype(np.float32)


def to_rgb(pixel: PixelFormat) -> NDArray[np.float32]:
    """Matrix [3, 4]: (r, g, b in 0..1) = M[:, :3] · code values of the three planes + M[:, 3]."""
    if pixel.layout == "gray":  # the planes' chroma is filler, it must not matter
        scale, offset = _luma_range(pixel)
        luma = np.zeros((3, 4))
        luma[:, 0], luma[:, 3] = 1 / scale, -offset / scale
        return luma.astype(np.float32)
    forward = _from_rgb(pixel)
    inverse = np.linalg.inv(forward[:, :3])
    return np.column_stack([inverse, -inverse @ forward[:, 3]]).astype(np.float32)


def limits(pixel: PixelFormat) -> NDArray[np.float32]:
    """Lowest and highest code [2] that may be written.

    Limited range leaves out only the codes reserved for synchronisation (0 and 255 in 8 bits), so
    blacker than black and whiter than white survive.
    """
    if pixel.full_range:
        return np.array([0, 2**pixel.bits - 1], np.float32)
    step = 1 << (pixel.bits - 8)
    return np.array([step, 255 * step - 1], np.float32)


def output_pixel(
    source: PixelFormat, width: int, height: int, image: bool, suffix: str = ".png"
) -> PixelFormat:
    """The pixel format to write what came in as `source` at its final size.

    Video is 4:2:0 in 8 bits, or 10 if the source has more, with the source's matrix and range;
    an odd size becomes 4:4:4, so that nothing is cropped. RGB becomes bt709 limited, grey limited.
    Images go by the suffix of the file.
    """
    if image:
        return _image_pixel(source, suffix)
    matrix: Matrix = "bt709" if source.matrix == "rgb" else source.matrix
    primaries, transfer = _USUAL_TAGS[matrix]
    keep_siting = source.layout == "yuv" and source.siting in ("left", "center", "topleft")
    return PixelFormat(
        bits=8 if source.bits == 8 else 10,
        layout="yuv",
        chroma=(1, 1) if width % 2 or height % 2 else (2, 2),
        matrix=matrix,
        full_range=source.full_range and source.layout == "yuv",
        siting=source.siting if keep_siting else "left",
        primaries=primaries if source.primaries == UNSPECIFIED else source.primaries,
        transfer=transfer if source.transfer == UNSPECIFIED else source.transfer,
    )


def video_pixel(pixel: PixelFormat, codec: Codec, bits: int | None) -> PixelFormat:
    """`pixel`, an output's, as the codec takes it: in `bits` if asked for, with its chroma."""
    wanted = bits or (pixel.bits if pixel.bits in codec.bits else codec.bits[-1])
    chroma = pixel.chroma if pixel.chroma in codec.chroma else codec.chroma[-1]
    return replace(pixel, bits=wanted, chroma=chroma)


def _image_pixel(source: PixelFormat, suffix: str) -> PixelFormat:
    """JPEG: bt601 full range 4:4:4 (JFIF). WebP: bt601 limited 4:2:0, all it has. Others: RGB."""
    jpeg, webp = suffix in (".jpg", ".jpeg"), suffix == ".webp"
    return PixelFormat(
        bits=8 if source.bits == 8 or jpeg or webp else 16,
        layout="yuv" if jpeg or webp else "rgb",
        chroma=(2, 2) if webp else (1, 1),
        matrix="bt601" if jpeg or webp else "rgb",
        full_range=not webp,
        siting="center",
        primaries=source.primaries,
        transfer=source.transfer,
    )


def _luma_range(pixel: PixelFormat) -> tuple[float, float]:
    """Code values between black and white, and the code of black."""
    if pixel.full_range:
        return 2.0**pixel.bits - 1, 0.0
    step = 2.0 ** (pixel.bits - 8)
    return 219 * step, 16 * step


def _from_rgb(pixel: PixelFormat) -> NDArray[np.float64]:
    scale, offset = _luma_range(pixel)
    if pixel.layout == "rgb":
        return np.column_stack([np.eye(3) * scale, np.full(3, offset)])
    red, blue = _LUMA[pixel.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    chroma_scale = 2.0**pixel.bits - 1 if pixel.full_range else 224 * 2.0 ** (pixel.bits - 8)
    u = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - blue)) * chroma_scale
    v = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - red)) * chroma_scale
    if pixel.layout == "gray":
        u, v = np.zeros(3), np.zeros(3)
    neutral = float(pixel.neutral)
    return np.column_stack([np.stack([luma * scale, u, v]), [offset, neutral, neutral]])
