"""A frame's three planes in one piece of memory, as they cross the bus: one copy a frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.device_tensor import DevicePart, DeviceTensor
from vr_trt.runtime.frames import PixelFormat, Plane
from vr_trt.runtime.planes import Planes
from vr_trt.runtime.region import Grid

ALIGNMENT = 256  # bytes: an engine's tensor must begin at such an address


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """Where the planes of a picture lie."""

    shapes: tuple[tuple[int, ...], ...]  # [H, W], [h, w], [h, w]
    kind: str  # uint8 or uint16

    @classmethod
    def of(cls, pixel: PixelFormat, width: int, height: int) -> "PlaneLayout":
        return cls(pixel.plane_shapes(width, height), pixel.dtype.name)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes before each plane."""
        first, second, _ = map(self._padded, self.shapes)
        return 0, first, first + second

    @property
    def bytes(self) -> int:
        """Of all three."""
        return sum(map(self._padded, self.shapes))

    def on_device(self, memory: DeviceTensor) -> dict[str, DevicePart]:
        """y, u and v, [1, rows, columns] each, in memory of `bytes` bytes."""
        places = zip("yuv", self.offsets, self.shapes, strict=True)
        return {name: memory.part(at, (1, *shape), self.kind) for name, at, shape in places}

    def grids(self, memory: DeviceTensor) -> dict[str, Grid]:
        """The same places as code values in rows and columns."""
        places = zip("yuv", self.offsets, self.shapes, strict=True)
        return {
            name: Grid(memory.address + at, self.kind, rows, columns, columns)
            for name, at, (rows, columns) in places
        }

    def put(self, planes: Planes, memory: NDArray[np.uint8]) -> None:
        """The planes into the host's memory."""
        for plane, place in zip(planes, self._views(memory), strict=True):
            place[...] = plane

    def get(self, memory: NDArray[np.uint8]) -> Planes:
        """Copies of the planes in the host's memory."""
        y, u, v = (place.copy() for place in self._views(memory))
        return y, u, v

    def _views(self, memory: NDArray[np.uint8]) -> Sequence[Plane]:
        kind = np.dtype(self.kind)
        views: list[Plane] = []
        for (rows, columns), at in zip(self.shapes, self.offsets, strict=True):
            size = rows * columns * kind.itemsize
            views.append(memory[at : at + size].view(kind).reshape(rows, columns))
        return views

    def _padded(self, shape: tuple[int, ...]) -> int:
        size = shape[0] * shape[1] * np.dtype(self.kind).itemsize
        return -(-size // ALIGNMENT) * ALIGNMENT
