"""Restored frames for NVENC from the card's own memory: no plane crosses the bus.

Each frame goes into a slot as the encoder reads it (NV12 or P010) and is lent to FFmpeg by DLPack.
NVENC copies nothing: FFmpeg registers the memory, maps it, and gives it back when the frame's
packet has been fetched, which waits for the encoding (libavcodec/nvenc.c, read in 7). Only then is
the slot free again. Before a frame is lent, the host has waited for what fills it: it needs the
sums for the digest (runtime/frame_digest.py) anyway.

Never executed by us on a GPU.
"""

from collections import deque
from threading import Condition
from typing import Any

import numpy as np
from av.video.frame import CudaContext, VideoFrame
from numpy.typing import NDArray

from vr_trt.errors import InterruptedRun
from vr_trt.runtime.device_ring import HostSlot, Slot
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.frame_digest import weights
from vr_trt.runtime.frames import Plane
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.plane_layout import PlaneLayout

PATIENCE = 120.0  # seconds without a free slot, after which the encoder is given up


class EncoderSlot:
    """A frame's memory, its rows' sums, and where the host gets those."""

    def __init__(self, lanes: Lanes, layout: EncoderLayout) -> None:
        self.frame = lanes.tensor((layout.bytes,), "uint8")
        self.sums = lanes.tensor((layout.sums,), "int64")
        self.seen = HostSlot(lanes, 8 * layout.sums)


class EncoderPicture:
    """A `vr_trt.runtime.frames.OnCard`; its slot is free when nobody holds it, FFmpeg included."""

    def __init__(self, owner: "EncoderFrames", slot: EncoderSlot) -> None:
        self._owner, self._slot = owner, slot

    def __del__(self) -> None:
        self._owner.give_back(self._slot)

    @property
    def shape(self) -> tuple[int, int]:
        return self._owner.layout.rows, self._owner.layout.columns

    def planes(self) -> tuple[Plane, Plane, Plane]:
        return self._owner.planes(self._slot)

    def row_sums(self) -> NDArray[np.int64]:
        """Those of y, u and v; waits for the GPU."""
        self._slot.seen.wait()
        return self._slot.seen.memory.array().view(np.int64).copy()

    def av_frame(self) -> VideoFrame:
        """The frame as FFmpeg's, in this very memory, which FFmpeg holds while it needs it."""
        return self.lend(self)

    def lend(self, owner: object) -> VideoFrame:
        """The same; FFmpeg holds `owner`. Waits for the GPU to have filled the memory."""
        self._slot.seen.wait()
        return self._owner.lend(self._slot, owner)


class EncoderFrames:
    """The slots of one run; filled by the loop, lent by the writer, given back by FFmpeg."""

    def __init__(self, lanes: Lanes, layout: EncoderLayout, count: int) -> None:
        """MemoryBudgetError where there is no room."""
        self.layout = layout
        self._lanes = lanes
        self._stream = lanes.another("encode")  # FFmpeg's own, on which nothing of ours waits
        self._free = deque(EncoderSlot(lanes, layout) for _ in range(count))
        self._changed = Condition()
        self._stopped = False
        self._context: CudaContext | None = None
        factors = weights(layout.columns)
        self._weights = lanes.tensor(factors.shape, "int64")
        self._weights.put(factors)
        lanes.device.synchronize(lanes.main)

    def fill(self, output: Slot, planes: PlaneLayout) -> EncoderPicture:
        """A frame that lies in `output`, which is given back. Waits while the encoder has all slots.

        InterruptedRun after `cancel`.
        """
        lanes, slot = self._lanes, self._take()
        picture = EncoderPicture(self, slot)
        stream, device = lanes.download, lanes.device
        output.read_by(stream)
        with lanes.span(stream, "to encoder"):
            done = 0
            source, to = planes.grids(output.tensor), self.layout.grids(slot.frame.address)
            for name, grid in source.items():
                device.place(to[name], grid, self.layout.shift, stream)
                device.digest(slot.sums.address + 8 * done, grid, self._weights.address, stream)
                done += grid.rows
            device.download(slot.seen.memory, slot.sums.address, 8 * done, stream)
        output.give_back(stream)
        slot.seen.copied_by(stream)
        return picture

    def lend(self, slot: EncoderSlot, owner: object) -> VideoFrame:
        """A slot as a frame of FFmpeg, which holds `owner` until the encoder is done with it."""
        if self._context is None:
            # One for all: it keeps what the encoders of all segments share.
            self._lanes.device.use_in_thread()
            self._context = CudaContext(
                primary_ctx=False, current_ctx=True, cuda_stream=self._stream
            )
        return VideoFrame.from_dlpack(
            self.layout.lent(slot.frame.address, owner),
            format=self.layout.format_name,
            cuda_context=self._context,
        )

    def planes(self, slot: EncoderSlot) -> tuple[Plane, Plane, Plane]:
        """Copies on the host; for whoever is no encoder."""
        slot.seen.wait()
        layout = self.layout
        codes: NDArray[Any] = slot.frame.numpy().view(layout.kind)
        lines: NDArray[Any] = (
            codes.reshape(-1, layout.pitch // layout.item)[:, : layout.columns] >> layout.shift
        )
        chroma = lines[layout.rows :]
        return lines[: layout.rows].copy(), chroma[:, ::2].copy(), chroma[:, 1::2].copy()

    def give_back(self, slot: EncoderSlot) -> None:
        """Nobody uses it any more; from any thread."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify_all()

    def cancel(self) -> None:
        """Make whoever waits for a slot stop, from any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _take(self) -> EncoderSlot:
        with self._changed:
            if not self._changed.wait_for(lambda: self._free or self._stopped, PATIENCE):
                raise RuntimeError("the encoder gives no frame back: report this")
            if self._stopped:
                raise InterruptedRun("the run was stopped")
            return self._free.popleft()
