"""The reference's whole-clip chain around the networks (spec §7), for parity and training.

The runtime streams instead, keeps every pixel (it pads where the reference crops), and runs the
same arithmetic as graphs. Clips are [T, 3, H, W].
"""

from math import sqrt

import torch
from torch import Tensor

from vr_trt.kernels.resample import resize_matrix

UNIT = 16  # pixels of a token


def resize_to_area(frames: Tensor, area: int) -> Tensor:
    """Resize frames [T, 3, H, W] to about `area` pixels, bicubic, not yet clamped (spec §7.2)."""
    height, width = frames.shape[-2:]
    scale = sqrt(area / (height * width))
    rows, columns = (
        torch.from_numpy(resize_matrix(size, round(size * scale), round(size * scale)))
        for size in (height, width)
    )
    return rows @ frames @ columns.t()


def crop_to_unit(frames: Tensor) -> Tensor:
    """Cut equally from both sides to multiples of 16 (spec §7.3)."""
    for axis in (2, 3):
        size = frames.shape[axis]
        kept = size - size % UNIT
        frames = frames.narrow(axis, round((size - kept) / 2), kept)
    return frames


def pad_frames(frames: Tensor) -> Tensor:
    """Repeat the last frame up to 4n + 1 frames, at least 5 unless it is one picture (§7.5)."""
    count = len(frames)
    wanted = 1 if count == 1 else max(5, count + (1 - count) % 4)
    return torch.cat([frames, frames[-1:].expand(wanted - count, -1, -1, -1)])
