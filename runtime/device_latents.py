"""Latents that stay on a device, each in a place of its own of one pool.

All of them are used on the main stream alone, in its order, so a place may be taken again as soon
as nobody on the host holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vr_trt.runtime.device_tensor import DeviceTensor, OnDevice
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.latent_windows import blend_weights
from vr_trt.runtime.region import Region


class Place:
    """One latent [1, C, 1, h, w] in float32; goes back to its pool when nobody holds it."""

    def __init__(self, tensor: DeviceTensor, free: list[DeviceTensor]) -> None:
        self.tensor = tensor
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.tensor)


@dataclass(frozen=True, slots=True)
class DeviceLatents:
    """Latents [1, C, n, h, w], sliced along n as an array is."""

    places: tuple[Place, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        if not self.places:
            return 1, 0, 0, 0, 0
        _, channels, _, height, width = self.places[0].tensor.shape()
        return 1, channels, len(self.places), height, width

    def __getitem__(self, key: tuple[slice, slice, slice]) -> "DeviceLatents":
        return DeviceLatents(self.places[key[2]])


class LatentPool:
    """Places for the latents of a shot; a `vr_trt.runtime.latent_windows.LatentMath`."""

    def __init__(self, lanes: Lanes, count: int, sizes: tuple[int, ...]) -> None:
        """`sizes` of one latent, [1, C, 1, h, w]. MemoryBudgetError where there is no room."""
        self._lanes = lanes
        self._count = count
        self._free = [lanes.tensor(sizes, "float32") for _ in range(count)]

    def join(self, parts: Sequence[DeviceLatents]) -> DeviceLatents:
        return DeviceLatents(tuple(place for part in parts for place in part.places))

    def blend(self, older: DeviceLatents | None, newer: DeviceLatents) -> DeviceLatents:
        """`newer`, whose places nobody writes any more, its first ones replaced by blended ones."""
        if older is None:
            return newer
        count = len(older.places)
        mixed = []
        for i, share in enumerate(blend_weights(count)):
            mixed.append(self._take())
            to, old, new = (
                x.tensor.region() for x in (mixed[-1], older.places[i], newer.places[i])
            )
            with self._lanes.span(self._lanes.main, "blend"):
                self._lanes.device.blend(to, old, new, float(share), self._lanes.main)
        return DeviceLatents((*mixed, *newer.places[count:]))

    def split(self, tensor: OnDevice) -> DeviceLatents:
        """The latents of a stage's output [1, C, n, h, w]."""
        places = []
        for i in range(tensor.shape()[2]):
            places.append(self._take())
            source = tensor.region(range(i, i + 1))
            self._move(places[-1].tensor.region(range(1)), source)
        return DeviceLatents(tuple(places))

    def gather(self, latents: DeviceLatents, tensor: OnDevice) -> None:
        """Latents to a stage's input [1, C, n, h, w]."""
        for i, place in enumerate(latents.places):
            to = tensor.region(range(i, i + 1))
            self._move(to, place.tensor.region(range(1)))

    def _move(self, to: Region, source: Region) -> None:
        self._lanes.device.move(to, source, self._lanes.main)

    def _take(self) -> Place:
        if not self._free:
            raise RuntimeError(f"all {self._count} places for latents are in use: report this")
        return Place(self._free.pop(), self._free)
