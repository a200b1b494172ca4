"""A film's frames as RGB pictures of a wanted size, by the runtime's own reader and colour matrices."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.canvas import Canvas
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe

Picture01 = NDArray[np.float32]  # [H, W, 3] RGB in 0..1
CELL = 16


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of the film's upright pictures; raises as `probe` does."""
    info = probe(path)
    return info.width, info.height


def rgb_frames(path: Path, size: tuple[int, int]) -> Iterator[Picture01]:
    """Pictures [H, W, 3] of the film in `path`, brought to `size` (width, height) by bicubic."""
    info = probe(path)
    width, height = size
    canvas = Canvas(
        out_w=width,
        out_h=height,
        padded_w=-(-width // CELL) * CELL,
        padded_h=-(-height // CELL) * CELL,
    )
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    stages = PixelStages(source, source, canvas, "none")
    with Reader(path, info) as reader:
        for frame in reader:
            x_CHW = stages.to_model([frame])[0, :, 0, :height, :width]
            yield np.ascontiguousarray(x_CHW.transpose(1, 2, 0)) * np.float32(0.5) + np.float32(0.5)
