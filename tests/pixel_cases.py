"""Videos of awkward sizes for the pixel kernels, with random code values and true matrices."""

from dataclasses import dataclass

import numpy as np
import torch
from tests.kernel_runs import DEVICE
from torch import Tensor

from vr_trt.kernels.resample import chroma_down_matrix, chroma_up_matrix, resize_matrix
from vr_trt.kernels.to_model import ToModelTables, to_model_tables
from vr_trt.kernels.to_video import ToVideoTables, to_video_tables

Planes = tuple[Tensor, Tensor, Tensor]
BT709 = np.array([[1, 0, 1.5748], [1, -0.1873, -0.4681], [1, 1.8556, 0]])


@dataclass(frozen=True, kw_only=True)
class Video:
    """Sizes are (height, width); `chroma` the factors (down, across)."""

    source: tuple[int, int]
    out: tuple[int, int]
    padded: tuple[int, int]
    chroma: tuple[int, int] = (2, 2)
    bits: int = 8
    shift: int = 0
    packed: bool = False  # u and v side by side, as in NV12 and P010
    frames: int = 2

    @property
    def top(self) -> int:
        return (1 << self.bits) - 1

    @property
    def depth(self) -> torch.dtype:
        return torch.uint8 if self.bits == 8 else torch.uint16

    def chroma_size(self, luma: tuple[int, int]) -> tuple[int, int]:
        return -(-luma[0] // self.chroma[0]), -(-luma[1] // self.chroma[1])

    def chroma_axes(self, luma: tuple[int, int], up: bool) -> list[np.ndarray]:
        """Chroma's matrices (rows, columns) [to, from], sited left."""
        make = chroma_up_matrix if up else chroma_down_matrix
        small = self.chroma_size(luma)
        return [
            make(luma[0], small[0], self.chroma[0], "center"),
            make(luma[1], small[1], self.chroma[1], "co-sited"),
        ]

    def resize_axes(self) -> list[np.ndarray]:
        """The picture's matrices (rows, columns) [to, from]."""
        sizes = zip(self.source, self.out, self.padded, strict=True)
        return [resize_matrix(*size) for size in sizes]

    def to_rgb(self) -> np.ndarray:
        offset = BT709 @ [[0.0], [-0.5], [-0.5]]
        return np.concatenate((BT709 / self.top, offset), 1).astype(np.float32)

    def from_rgb(self) -> np.ndarray:
        matrix = np.column_stack((np.linalg.inv(BT709), [0, 0.5, 0.5])) * self.top
        return matrix.astype(np.float32)

    def to_model_tables(self) -> ToModelTables:
        return to_model_tables(
            self.to_rgb(), *self.resize_axes(), *self.chroma_axes(self.source, True)
        )

    def to_video_tables(self, dither: np.ndarray) -> ToVideoTables:
        limits = np.array([self.top // 64, self.top - self.top // 64], np.float32)
        axes = self.chroma_axes(self.out, False)
        return to_video_tables(self.from_rgb(), dither, limits, *axes)

    def planes(self, luma: tuple[int, int], random: np.random.Generator) -> Planes:
        """Random code values, shifted up, on the device; chroma as views where packed."""
        small = self.chroma_size(luma)

        def noise(*size: int) -> Tensor:
            codes = random.integers(0, self.top + 1, (self.frames, *size)) << self.shift
            return torch.from_numpy(codes.astype(np.uint8 if self.bits == 8 else np.uint16)).to(
                DEVICE
            )

        if self.packed:
            both = noise(*small, 2)
            return noise(*luma), both[..., 0], both[..., 1]
        return noise(*luma), noise(*small), noise(*small)


# One sample; odd sizes; one column more than a tile; enlarged, kept, reduced; every layout.
VIDEOS = {
    "yuv420p": Video(source=(6, 14), out=(12, 28), padded=(16, 32)),
    "nv12": Video(source=(6, 70), out=(9, 105), padded=(16, 112), packed=True, frames=1),
    "one sample": Video(source=(1, 1), out=(8, 8), padded=(16, 16), frames=1),
    "odd": Video(source=(7, 33), out=(14, 66), padded=(16, 80), frames=1),
    "p010": Video(
        source=(5, 12), out=(10, 24), padded=(16, 32), bits=10, shift=6, packed=True, frames=1
    ),
    "422, 10 bits, reduced": Video(
        source=(12, 145), out=(4, 48), padded=(8, 48), chroma=(1, 2), bits=10, frames=1
    ),
    "444, kept": Video(source=(9, 129), out=(9, 129), padded=(16, 144), chroma=(1, 1)),
    "to one row": Video(source=(5, 9), out=(1, 6), padded=(8, 16), frames=3),
    "410": Video(source=(9, 21), out=(18, 42), padded=(24, 48), chroma=(4, 4), frames=1),
}


def uniform(low: float, high: float, *shape: int, seed: int) -> Tensor:
    """Random numbers on the device."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.uniform(low, high, shape).astype(np.float32)).to(DEVICE)
