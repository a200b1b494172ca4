"""Frames that NVDEC leaves in the card's memory: looked at there, and copied from there.

FFmpeg gives each as a copy of its own, made in order with CUDA's legacy stream, and takes the
memory again for a later one, in the order of the same stream, once nobody holds the frame
(libavcodec/nvdec.c and libavutil/hwcontext_cuda.c, read in 7). So that stream stands for the decoder:
readers wait for it, and it waits for readers. A frame's planes never cross the bus; the sums of a
small picture's cells do, for the detector of cuts.

Never executed by us on a GPU.
"""

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import DamagedInputError
from vr_trt.runtime.device_ring import HostSlot
from vr_trt.runtime.frames import Plane
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.region import Grid, Samples
from vr_trt.runtime.scene_cuts import picks

LEGACY_STREAM = 1  # cudaStreamLegacy: the default stream, on which FFmpeg works
KINDS = {"nv12": ("uint8", 8), "p010le": ("uint16", 10), "p016le": ("uint16", 12)}
_MARKS = 64  # events of frames on their way; marking one anew only makes its readers wait longer

Planes = tuple[Plane, Plane, Plane]


class DecodedPicture:
    """A `vr_trt.runtime.frames.OnCard` of NVDEC's; FFmpeg has its memory again when it is dropped."""

    def __init__(
        self, owner: "DecodedPictures", frame: Any, to_host: Callable[[], Planes], mark: int
    ) -> None:
        self._owner, self._frame, self._to_host, self._mark = owner, frame, to_host, mark
        self.grids = owner.grids(frame)

    @property
    def shape(self) -> tuple[int, int]:
        return self.grids["y"].rows, self.grids["y"].columns

    def planes(self) -> Planes:
        return self._to_host()

    def cell_sums(self) -> NDArray[np.int32]:
        """[rows, columns]: sums of the luma over the samples of each cell; waits for the GPU."""
        return self._owner.cell_sums(self.grids["y"], self._mark)

    def copy(self, to: Mapping[str, Grid], stream: int) -> None:
        """Let `stream` copy y, u and v, each code value in the lower bits."""
        self._owner.copy(self.grids, to, self._mark, stream)


class DecodedPictures:
    """What NVDEC's frames of one film have in common; used by the reader and by the loop."""

    def __init__(
        self,
        lanes: Lanes,
        source: Picture,
        upright: tuple[int, bool],  # degrees clockwise, mirrored
        decoder: int = LEGACY_STREAM,
    ) -> None:
        """Takes what the film needs; MemoryBudgetError where there is no room."""
        self._device, self._decoder = lanes.device, decoder
        lanes.device.use_in_thread()  # FFmpeg, which is opened next, takes the context it finds
        self._source, self._upright = source, upright
        self._marks = cycle([lanes.event() for _ in range(_MARKS)])
        self._copied = lanes.event()
        self._look = lanes.another("look")
        rows, columns = picks((source.height, source.width))
        indices = [axis.astype(np.int32) for axis in (rows, columns)]
        places = [lanes.tensor(axis.shape, "int32") for axis in indices]
        for place, axis in zip(places, indices, strict=True):
            place.put(axis)
        lanes.device.synchronize(lanes.main)
        self._samples = Samples(
            rows=places[0].address,
            columns=places[1].address,
            row_cells=rows.shape[0],
            row_samples=rows.shape[1],
            column_cells=columns.shape[0],
            column_samples=columns.shape[1],
        )
        self._sums = lanes.tensor((rows.shape[0], columns.shape[0]), "int32")
        self._cells = HostSlot(lanes, 4 * rows.shape[0] * columns.shape[0])

    @property
    def shift(self) -> int:
        """Bits below a code value: 10 and 12 bits lie in the upper ones of 16."""
        bits = self._source.pixel.bits
        return 0 if bits == 8 else 16 - bits

    def take(self, frame: Any, to_host: Callable[[], Planes]) -> DecodedPicture:
        """A frame that has just been decoded; `to_host` makes planes of it where it must be."""
        mark = next(self._marks)
        self._device.record(mark, self._decoder)
        return DecodedPicture(self, frame, to_host, mark)

    def grids(self, frame: Any) -> dict[str, Grid]:
        """Where the upright code values of a frame lie. DamagedInputError for another format."""
        name = frame.sw_format.name if frame.sw_format else frame.format.name
        kind, bits = KINDS.get(name, ("", 0))
        if bits != self._source.pixel.bits:
            raise DamagedInputError(
                f"the picture's format changes to {name} on the way: cut the input there"
            )
        size, (luma, chroma) = np.dtype(kind).itemsize, frame.planes
        rows, columns = frame.height // 2, frame.width // 2
        step, at = chroma.line_size // size, chroma.buffer_ptr
        stored = {
            "y": Grid(luma.buffer_ptr, kind, frame.height, frame.width, luma.line_size // size),
            "u": Grid(at, kind, rows, columns, step, 2),
            "v": Grid(at + size, kind, rows, columns, step, 2),
        }
        return {plane: grid.turned(*self._upright) for plane, grid in stored.items()}

    def cell_sums(self, luma: Grid, mark: int) -> NDArray[np.int32]:
        """Made on a stream of its own, and waited for: afterwards nobody reads the frame here."""
        device, look = self._device, self._look
        device.wait(look, mark)
        device.cells(self._sums.address, luma, self.shift, self._samples, look)
        shape = self._sums.shape()
        device.download(self._cells.memory, self._sums.address, 4 * shape[0] * shape[1], look)
        self._cells.copied_by(look)
        self._cells.wait()
        return self._cells.memory.array().view(np.int32).reshape(shape).copy()

    def copy(
        self, grids: Mapping[str, Grid], to: Mapping[str, Grid], mark: int, stream: int
    ) -> None:
        device = self._device
        device.wait(stream, mark)
        for name, grid in grids.items():
            device.place(to[name], grid, -self.shift, stream)
        # What FFmpeg will write there, for a later frame, comes after.
        device.record(self._copied, stream)
        device.wait(self._decoder, self._copied)
