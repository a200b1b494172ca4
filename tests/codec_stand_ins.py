"""NVDEC and NVENC as FFmpeg drives them, on a recorded device: both own, and reuse, memory there.

The decoder writes each frame on the default stream and takes a surface again, in that stream's
order, as soon as nobody holds the frame. The encoder reads on a stream of its own, which waits for
nothing of ours, some frames later; it gives a frame back when it has read it.
"""

import ctypes
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tests.recorded_device import RecordedDevice

from vr_trt.runtime.device_decoded import LEGACY_STREAM
from vr_trt.runtime.dlpack import Managed
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.planes import Planes, build_frame, take_planes

LOSSLESS = {"qp": "0", "preset": "ultrafast"}  # of libx264
PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}


class Nvdec:
    """Surfaces, and frames in them."""

    def __init__(
        self, device: RecordedDevice, size: tuple[int, int], bits: int, count: int
    ) -> None:
        """`size`: width and height as stored; `count` of surfaces, or as many as are asked for."""
        kind = "uint8" if bits == 8 else "uint16"
        self.device, self.layout = device, EncoderLayout(size[1], size[0], kind, bits)
        device.adopt(LEGACY_STREAM)
        self.surfaces = [device.allocate(self.layout.bytes, LEGACY_STREAM) for _ in range(count)]
        self._event = device.event()
        self._free = deque(self.surfaces)
        self.fewest = count

    def close(self) -> None:
        """Give everything back; no frame is held any more."""
        assert len(self._free) == len(self.surfaces), "somebody holds a decoded frame"
        for address in self.surfaces:
            self.device.free(address, LEGACY_STREAM)
        self.device.synchronize(LEGACY_STREAM)
        self.device.destroy_event(self._event)
        self.device.destroy_stream(LEGACY_STREAM)

    def decode(self, picture: av.VideoFrame) -> "NvdecFrame":
        """The picture, decoded by somebody else, as NVDEC would give it."""
        stored = packed(take_planes(picture), self.layout)
        surface = self._free.popleft()
        self.fewest = min(self.fewest, len(self._free))
        work = lambda: self.device.write(surface, stored.tobytes())
        self.device.enqueue(LEGACY_STREAM, "decode", work, writes=[surface])
        return NvdecFrame(self, surface, picture)

    def download(self, surface: int) -> Planes:
        """What FFmpeg's own copy to the host gives, which waits for its stream."""
        found: list[Planes] = []
        work = lambda: found.append(unpacked(self.device, surface, self.layout))
        self.device.enqueue(LEGACY_STREAM, "to host", work, reads=[surface])
        self.device.record(self._event, LEGACY_STREAM)
        self.device.wait_for(self._event)
        return found[0]

    def free(self, surface: int) -> None:
        self._free.append(surface)


class NvdecFrame:
    """What of `av.VideoFrame` is looked at."""

    is_corrupt = False
    interlaced_frame = False

    def __init__(self, owner: Nvdec, surface: int, picture: av.VideoFrame) -> None:
        layout = owner.layout
        self._owner, self._surface = owner, surface
        self.width, self.height = layout.columns, layout.rows
        self.pts, self.duration = picture.pts, picture.duration
        self.time_base = picture.time_base
        self.format = SimpleNamespace(name="cuda")
        self.sw_format = SimpleNamespace(name=layout.format_name)
        places = surface, surface + layout.pitch * layout.rows
        self.planes = [SimpleNamespace(buffer_ptr=at, line_size=layout.pitch) for at in places]

    def __del__(self) -> None:
        self._owner.free(self._surface)

    def reformat(self, format: str) -> av.VideoFrame:
        assert format == self.sw_format.name
        return build_frame(self._owner.download(self._surface), PLANAR[format])


class Nvenc:
    """An encoder that holds so many frames before it gives the first one back."""

    def __init__(self, device: RecordedDevice, holds: int) -> None:
        self.device, self._holds = device, holds
        self.stream, self._event = device.stream(), device.event()
        self._held: deque[tuple[LentFrame, list[Planes]]] = deque()

    def close(self) -> None:
        """Give everything back."""
        self.device.synchronize(self.stream)
        self.device.destroy_event(self._event)
        self.device.destroy_stream(self.stream)

    def take(self, frame: "LentFrame") -> Iterator[tuple[int, Planes]]:
        """Read it some time; yield what has been read, each with its pts."""
        found: list[Planes] = []
        work = lambda: found.append(unpacked(self.device, frame.address, frame.layout))
        self.device.enqueue(self.stream, "encode", work, reads=[frame.address])
        self._held.append((frame, found))
        while len(self._held) > self._holds:
            yield self._oldest()

    def drain(self) -> Iterator[tuple[int, Planes]]:
        """The rest."""
        while self._held:
            yield self._oldest()

    def _oldest(self) -> tuple[int, Planes]:
        """The packet is fetched, which waits; then FFmpeg lets go of the frame."""
        self.device.record(self._event, self.stream)
        self.device.wait_for(self._event)
        frame, found = self._held.popleft()
        frame.give_back()
        return frame.pts, found[0]


class NvdecContext:
    """A decoder's context: pictures by software, given as NVDEC would."""

    def __init__(self, software: Any, nvdec: Nvdec | None) -> None:
        """Without `nvdec` frames come to the host, as FFmpeg's do by default."""
        self._software, self._nvdec = software, nvdec

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        found: Fraction | None = self._software.sample_aspect_ratio
        return found

    def decode(self, packet: Any) -> list[Any]:
        pictures = self._software.decode(packet)
        return pictures if self._nvdec is None else [self._nvdec.decode(x) for x in pictures]


class NvencContext:
    """An encoder's context: libx264 without loss, of what the stand-in has read."""

    is_open = False

    def __init__(self, nvenc: Nvenc) -> None:
        self._nvenc = nvenc
        self._coder: Any = av.CodecContext.create("libx264", "w")
        self.pix_fmt = ""
        self.flags = self._coder.flags
        self.width = self.height = 0
        self.time_base = Fraction(1)

    @property
    def extradata(self) -> bytes | None:
        found: bytes | None = self._coder.extradata
        return found

    def encode(self, frame: "LentFrame | None") -> list[Any]:
        if frame is not None and not self.is_open:
            assert self.pix_fmt == "cuda" and frame.cuda_context["current_ctx"]
            self._open(PLANAR[frame.layout.format_name])
        read = self._nvenc.drain() if frame is None else self._nvenc.take(frame)
        packets = []
        for pts, planes in read:
            picture = build_frame(planes, self._coder.pix_fmt)
            picture.pts, picture.time_base = pts, self.time_base
            packets += self._coder.encode(picture)
        return packets if frame is not None else packets + self._coder.encode(None)

    def _open(self, pix_fmt: str) -> None:
        self.is_open = True
        self._coder.width, self._coder.height = self.width, self.height
        self._coder.pix_fmt, self._coder.time_base = pix_fmt, self.time_base
        self._coder.flags = self.flags
        self._coder.options = dict(LOSSLESS)


def lossless_stream(output: Any, target: OutputSpec, source: VideoInfo) -> Any:
    """The muxer's stream for what such an encoder makes."""
    stream = output.add_stream("libx264", rate=source.frame_rate.limit_denominator(100_000))
    stream.width, stream.height, stream.pix_fmt = target.width, target.height, "yuv420p"
    stream.codec_context.options, stream.time_base = dict(LOSSLESS), source.time_base
    return stream


class LentFrame:
    """What `VideoFrame.from_dlpack` makes of planes: PyAV's side of `vr_trt.runtime.dlpack`."""

    def __init__(self, planes: Any, format: str, cuda_context: Any = None) -> None:
        self.cuda_context = cuda_context
        self._managed = [_consumed(plane.__dlpack__()) for plane in planes]
        luma, chroma = (managed.tensor for managed in self._managed)
        assert [luma.dimensions, chroma.dimensions, chroma.shape[2]] == [2, 3, 2]
        bits = luma.type.bits
        kind, depth = ("uint8", 8) if format == "nv12" else ("uint16", 10)
        assert bits == 8 * np.dtype(kind).itemsize
        self.address = luma.data
        self.layout = EncoderLayout(luma.shape[0], luma.shape[1], kind, depth)
        assert luma.strides[0] * bits // 8 == chroma.strides[0] * bits // 8 == self.layout.pitch
        assert chroma.data == luma.data + self.layout.pitch * luma.shape[0]
        self.pts, self.duration, self.time_base = 0, 0, Fraction(1)

    def give_back(self) -> None:
        """Call the deleters, once."""
        for managed in self._managed:
            managed.deleter(ctypes.addressof(managed))
        self._managed.clear()

    def __del__(self) -> None:
        self.give_back()


def packed(planes: Planes, layout: EncoderLayout) -> NDArray[Any]:
    """NV12 or P010 in rows of the layout's pitch; what lies beside the picture is 0xFF."""
    width = layout.pitch // layout.item
    lines: NDArray[Any] = np.full(layout.bytes, 0xFF, np.uint8).view(layout.kind).reshape(-1, width)
    y, u, v = (plane.astype(layout.kind) << layout.shift for plane in planes)
    lines[: layout.rows, : layout.columns] = y
    lines[layout.rows :, : layout.columns : 2] = u
    lines[layout.rows :, 1 : layout.columns : 2] = v
    return lines


def unpacked(device: RecordedDevice, address: int, layout: EncoderLayout) -> Planes:
    """The planes that lie there now."""
    codes: NDArray[Any] = device.read(address, layout.bytes).view(layout.kind)
    codes = codes.reshape(-1, layout.pitch // layout.item)[:, : layout.columns]
    lines: NDArray[Any] = codes >> layout.shift
    chroma = lines[layout.rows :]
    return lines[: layout.rows].copy(), chroma[:, ::2].copy(), chroma[:, 1::2].copy()


def _consumed(capsule: object) -> Managed:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return Managed.from_address(pointer(capsule, b"dltensor"))
