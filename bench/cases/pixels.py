"""What the cases of the pixel kernels share: videos with random codes and true matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vr_trt.bench.case import Call, Way
from vr_trt.kernels.resample import chroma_down_matrix, chroma_up_matrix, resize_matrix

Planes = tuple[Tensor, Tensor, Tensor]
Matrix = NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of a video and their canvas; sizes are (height, width)."""

    source: Size
    out: Size
    frames: int
    bits: int = 8  # 8: NV12, 10: P010
    importance: int = 2

    @property
    def padded(self) -> Size:
        """The canvas: up to multiples of 16."""
        return -(-self.out[0] // 16) * 16, -(-self.out[1] // 16) * 16

    @property
    def shift(self) -> int:
        return 0 if self.bits == 8 else 16 - self.bits

    @property
    def from_rgb(self) -> Matrix:
        """[3, 4]: code values of the planes from RGB in 0..1; BT.709, limited range.

        Made here, as `runtime.colour` needs the video libraries, which a GPU's machine may lack.
        """
        red, blue = 0.2126, 0.0722
        luma = np.array([red, 1 - red - blue, blue])
        u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
        v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
        rows = np.stack([219 * luma, 224 * u, 224 * v])
        matrix = np.column_stack([rows, [16, 128, 128]]) * (1 << (self.bits - 8))
        return matrix.astype(np.float32)

    @property
    def to_rgb(self) -> Matrix:
        """[3, 4]: the inverse."""
        forward = self.from_rgb.astype(np.float64)
        inverse = np.linalg.inv(forward[:, :3])
        return np.column_stack([inverse, -inverse @ forward[:, 3]]).astype(np.float32)

    @property
    def limits(self) -> Matrix:
        """[2]: lowest and highest code."""
        step = 1 << (self.bits - 8)
        return np.array([step, 255 * step - 1], np.float32)

    def resize(self) -> list[Matrix]:
        """Rows and columns of the picture's resize, [to, from]."""
        return [
            resize_matrix(*axis) for axis in zip(self.source, self.out, self.padded, strict=True)
        ]

    def chroma(self, luma: Size, up: bool) -> list[Matrix]:
        """Rows and columns of chroma's resampling, [to, from]; sited left."""
        make = chroma_up_matrix if up else chroma_down_matrix
        down, across = (-(-size // 2) for size in luma)
        return [make(luma[0], down, 2, "center"), make(luma[1], across, 2, "co-sited")]

    def planes(self, luma: Size, device: str, seed: int) -> Planes:
        """Random codes as NV12 or P010 keep them: u and v are views of one plane."""
        random = torch.Generator(device).manual_seed(seed)
        depth = torch.uint8 if self.bits == 8 else torch.int16
        most = 1 << self.bits

        def codes(*size: int) -> Tensor:
            full = (self.frames, *size)
            noise = torch.randint(0, most, full, generator=random, device=device, dtype=torch.int32)
            plane = (noise << self.shift).to(depth)
            return plane if self.bits == 8 else plane.view(torch.uint16)

        both = codes(-(-luma[0] // 2), -(-luma[1] // 2), 2)
        return codes(*luma), both[..., 0], both[..., 1]

    def plane_bytes(self, luma: Size) -> int:
        """Of all frames."""
        chroma = -(-luma[0] // 2) * -(-luma[1] // 2) * 2
        return self.frames * (luma[0] * luma[1] + chroma) * (1 if self.bits == 8 else 2)

    def canvas(self, device: str, seed: int) -> Tensor:
        """A random picture [3, F, Hp, Wp] fp16, about -1..1."""
        random = torch.Generator(device).manual_seed(seed)
        shape = (3, self.frames, *self.padded)
        return (torch.rand(shape, generator=random, device=device) * 2.1 - 1.05).half()


def on(device: str, arrays: Sequence[Matrix]) -> list[Tensor]:
    """The arrays as tensors."""
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


def pytorch(
    module: torch.nn.Module,
    arguments: Callable[[Any], tuple[Tensor, ...]],
    *,
    compiles: bool = False,
) -> Way:
    """A module of `vr_trt.export`, on what `arguments` makes of the inputs before they are timed.

    It gets codes and pictures as narrow as our kernels do, and widens them within the time.
    """

    def widened(*given: Tensor) -> Any:
        return module(*(x.float() if x.dtype == torch.float16 else x for x in given))

    def way(inputs: Any) -> Callable[[], Any]:
        given = arguments(inputs)
        module.to(given[0].device)
        call = torch.compile(widened, dynamic=False) if compiles else widened
        return without_gradients(lambda: call(*given))

    return way


def without_gradients(call: Call) -> Call:
    """The same call where PyTorch keeps nothing for a backward pass."""

    def alone() -> Any:
        with torch.no_grad():
            return call()

    return alone
