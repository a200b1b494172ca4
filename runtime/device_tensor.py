"""Arrays on a device, and the types that numpy lacks."""

from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.cuda import Device
from vr_trt.runtime.region import Region, frames, whole
from vr_trt.runtime.session import Array

BF16 = "bf16"  # on the host its bits, as uint16


def item_bytes(kind: str) -> int:
    """Bytes of one value of `kind`: a numpy type's name, or bf16."""
    return 2 if kind == BF16 else np.dtype(kind).itemsize


def tensor_bytes(sizes: tuple[int, ...], kind: str) -> int:
    """Bytes of a contiguous tensor."""
    return prod(sizes) * item_bytes(kind)


def to_kind(array: Array, kind: str) -> Array:
    """`array` contiguous in the type `kind`, bf16 as its bits, rounded to nearest even."""
    if kind != BF16:
        return np.ascontiguousarray(array, dtype=kind)
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    # A NaN keeps its upper bits, which rounding could turn into an infinity.
    return np.where(np.isnan(array), bits >> 16 | 0x40, rounded >> 16).astype(np.uint16)


def from_kind(array: Array, kind: str) -> Array:
    """The inverse: bits of bf16 as float32; anything else as it is."""
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == BF16 else array


class DeviceTensor:
    """A `vr_trt.runtime.session.Tensor` whose memory goes back when nobody holds it any more.

    Memory is taken and given back in the order of one stream, on which all its users run.
    """

    def __init__(self, device: Device, stream: int, sizes: tuple[int, ...], kind: str) -> None:
        """MemoryBudgetError where the device has no room."""
        self._device, self._stream = device, stream
        self._sizes, self.kind = sizes, kind
        # Zero bytes have no address.
        size = max(1, tensor_bytes(sizes, kind))
        self.address = 0  # should there be no room, nothing is given back
        self.address = device.allocate(size, stream)
        self._owned = True

    @classmethod
    def lent(
        cls, device: Device, stream: int, address: int, sizes: tuple[int, ...], kind: str
    ) -> Self:
        """Memory of somebody else's, who keeps it for as long as it is used."""
        tensor = cls.__new__(cls)
        tensor._device, tensor._stream = device, stream
        tensor._sizes, tensor.kind, tensor.address = sizes, kind, address
        tensor._owned = False
        return tensor

    def __del__(self) -> None:
        self.free()

    def free(self) -> None:
        """Give the memory back now; nobody may use the tensor any more."""
        if self.address and self._owned:
            address, self.address = self.address, 0
            self._device.free(address, self._stream)

    def shape(self) -> tuple[int, ...]:
        return self._sizes

    def part(self, offset: int, sizes: tuple[int, ...], kind: str) -> "DevicePart":
        """A tensor of its own, `offset` bytes from the start of this one's memory."""
        if offset + tensor_bytes(sizes, kind) > tensor_bytes(self._sizes, self.kind):
            raise ValueError(f"{sizes} of {kind} at {offset} do not fit into {self._sizes}")
        return DevicePart(self, offset, sizes, kind)

    def region(self, part: range | None = None) -> Region:
        """All of it, or some frames of [1, C, T, h, w]."""
        return _region(self.address, self._sizes, self.kind, part)

    def numpy(self) -> Array:
        """It on the host, when the device is done with it; bf16 as float32."""
        host: NDArray[np.generic] = np.empty(
            self._sizes, np.uint16 if self.kind == BF16 else self.kind
        )
        self._device.copy_out(host, self.address, self._stream)
        self._device.synchronize(self._stream)
        return from_kind(host, self.kind)

    def put(self, array: Array) -> None:
        """Copy `array` in. Memory that is not page-locked has been read when this returns (CUDA
        runtime API, "API synchronization behavior").
        """
        self._device.copy_in(self.address, to_kind(array, self.kind), self._stream)


@dataclass(frozen=True, slots=True, eq=False)
class DevicePart:
    """A tensor within another's memory, which it keeps."""

    owner: DeviceTensor
    offset: int
    sizes: tuple[int, ...]
    kind: str

    @property
    def address(self) -> int:
        return self.owner.address + self.offset

    def shape(self) -> tuple[int, ...]:
        return self.sizes

    def region(self, part: range | None = None) -> Region:
        """All of it, or some frames of [1, C, T, h, w]."""
        return _region(self.address, self.sizes, self.kind, part)

    def numpy(self) -> Array:
        """It on the host; its owner is a tensor of bytes."""
        stop = self.offset + tensor_bytes(self.sizes, self.kind)
        kind = np.uint16 if self.kind == BF16 else self.kind
        content = self.owner.numpy()[self.offset : stop].view(kind)
        return from_kind(content.reshape(self.sizes), self.kind)


OnDevice = DeviceTensor | DevicePart


def _region(address: int, sizes: tuple[int, ...], kind: str, part: range | None) -> Region:
    if part is None:
        return whole(address, sizes, kind)
    return frames(address, sizes, kind, item_bytes(kind), part)
