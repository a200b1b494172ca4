"""Frames for the tests of the runtime."""

import numpy as np

from vr_trt.runtime.frames import Frame, PixelFormat

RGB8 = PixelFormat(
    bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
)
YUV420 = PixelFormat(
    bits=8, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
)


def flat_frame(
    level: int, *, pts: int = 0, width: int = 20, height: int = 12, pixel: PixelFormat = RGB8
) -> Frame:
    """A frame whose planes are filled with `level` (RGB) or with it and neutral chroma (YUV)."""
    shapes = pixel.plane_shapes(width, height)
    levels = (
        (level, level, level) if pixel.layout == "rgb" else (level, pixel.neutral, pixel.neutral)
    )
    y, u, v = (np.full(s, n, pixel.dtype) for s, n in zip(shapes, levels, strict=True))
    return Frame((y, u, v), pts, 1)
