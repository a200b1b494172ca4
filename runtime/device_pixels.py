"""The pixels' way through a device: planes up, to_model, and from to_video planes down again.

    host ─upload─► source frames ─pre─► x ─► (main) ─► x ─post─► output frames ─download─► host

Planes cross the bus, never RGB, one copy a frame each way. The source's frames stay on the device
until they are restored: to_video looks at them. What NVDEC left on the card is copied there in
place of the upload, and a frame for NVENC goes to the encoder in place of the download.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vr_trt.runtime.device_call import Call, DeviceSession, place
from vr_trt.runtime.device_decoded import DecodedPicture
from vr_trt.runtime.device_encoding import EncoderFrames
from vr_trt.runtime.device_memory import LoopSizes
from vr_trt.runtime.device_ring import HostRing, HostSlot, Ring, Slot
from vr_trt.runtime.device_tensor import OnDevice
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.pixel_stages import Inputs, check_size
from vr_trt.runtime.region import Region


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A frame on the device, until it is restored."""

    slot: Slot
    pts: int
    duration: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelSessions:
    """One session for each stream that runs it, and what is the same for every frame."""

    pre: DeviceSession  # to_model
    reference: DeviceSession | None  # to_model for to_video, where that looks at the source
    post: DeviceSession  # to_video
    to_model_inputs: Inputs
    to_video_inputs: Inputs


class DevicePixels:
    """Frames to x for the networks, and x to frames."""

    def __init__(
        self,
        lanes: Lanes,
        sessions: PixelSessions,
        sizes: LoopSizes,
        encoder: EncoderFrames | None = None,
    ) -> None:
        """Takes the rings; MemoryBudgetError where there is no room.

        With `encoder`, restored frames stay on the device for it.
        """
        self._encoder = encoder
        self._lanes, self._sizes = lanes, sizes
        source, target = sizes.source_layout, sizes.target_layout
        self._incoming = HostRing(lanes, sizes.incoming, source.bytes)
        self._sources = Ring(lanes, "source frames", sizes.sources, (source.bytes,), "uint8")
        self._x = Ring(lanes, "chunks to encode", sizes.chunks, sizes.encode_x, sizes.encode_kind)
        self._restored = Ring(
            lanes, "decoded chunks", sizes.chunks, sizes.decode_x, sizes.decode_kind
        )
        self._outputs = Ring(lanes, "output frames", sizes.outputs, (target.bytes,), "uint8")
        self._outgoing = deque(HostSlot(lanes, target.bytes) for _ in range(sizes.outgoing))
        self._pending: deque[tuple[HostSlot, Source]] = deque()  # downloads, oldest first
        self._pre = _ToModel(lanes, lanes.pre, sessions.pre, sessions.to_model_inputs, sizes)
        self._post = _ToVideo(lanes, sessions, sizes)

    def take(self, frame: Frame) -> Source:
        """Send a frame's planes to the device; DamagedInputError where its size is another."""
        check_size(frame, self._sizes.source)
        lanes, layout = self._lanes, self._sizes.source_layout
        if isinstance(frame.content, DecodedPicture):
            slot = self._sources.take(lanes.upload)
            with lanes.span(lanes.upload, "from decoder"):
                frame.content.copy(layout.grids(slot.tensor), lanes.upload)
            slot.filled(lanes.upload)
            return Source(slot, frame.pts, frame.duration)
        host = self._incoming.take()
        layout.put(frame.planes, host.memory.array())
        slot = self._sources.take(lanes.upload)
        with lanes.span(lanes.upload, "upload"):
            lanes.device.upload(slot.tensor.address, host.memory, layout.bytes, lanes.upload)
        host.copied_by(lanes.upload)
        slot.filled(lanes.upload)
        return Source(slot, frame.pts, frame.duration)

    def to_model(self, group: Sequence[Source]) -> Slot:
        """x [1, 3, F, Hp, Wp] of F frames, in a slot that main may read when it says so."""
        lanes = self._lanes
        slot = self._x.take(lanes.pre)
        for i, source in enumerate(group):
            source.slot.read_by(lanes.pre)
            x = self._pre.run(source.slot)
            lanes.device.move(self._frame(slot, i, len(group)), x.region(range(1)), lanes.pre)
        slot.filled(lanes.pre)
        return slot

    def drop(self, source: Source, stream: int) -> None:
        """A frame that is not restored, and that nobody reads after what `stream` does by now."""
        source.slot.give_back(stream)

    def decoded(self, x: OnDevice) -> Slot:
        """A slot with what main decoded: x [1, 3, F, Hp, Wp]."""
        lanes = self._lanes
        slot = self._restored.take(lanes.main)
        count = x.shape()[2]
        region = x.region(range(count))
        lanes.device.move(self._frames(slot, range(count), count), region, lanes.main)
        slot.filled(lanes.main)
        return slot

    def to_video(self, slot: Slot, number: int, count: int, source: Source) -> Iterator[Frame]:
        """Restore frame `number` of the `count` in a slot; yield the oldest where room is needed.

        The source's frame is given back.
        """
        lanes = self._lanes
        if self._encoder is None and not self._outgoing:
            yield self._oldest()
        slot.read_by(lanes.post)
        source.slot.read_by(lanes.post)
        output = self._outputs.take(lanes.post)
        self._post.run(self._frame(slot, number, count), source.slot, output)
        source.slot.give_back(lanes.post)
        output.filled(lanes.post)
        if self._encoder is None:
            self._download(output, source)
        else:
            yield self._to_encoder(output, source.pts, source.duration)

    def given(self, frame: Frame) -> Frame:
        """A frame that was restored on the host, as those that `to_video` gives are."""
        if self._encoder is None:
            return frame
        lanes, output = self._lanes, self._outputs.take(self._lanes.post)
        parts = self._sizes.target_layout.on_device(output.tensor).values()
        for part, plane in zip(parts, frame.planes, strict=True):
            lanes.device.copy_in(part.address, np.ascontiguousarray(plane), lanes.post)
        output.filled(lanes.post)
        return self._to_encoder(output, frame.pts, frame.duration)

    def _to_encoder(self, output: Slot, pts: int, duration: int) -> Frame:
        assert self._encoder is not None
        return Frame(self._encoder.fill(output, self._sizes.target_layout), pts, duration)

    def _download(self, output: Slot, source: Source) -> None:
        lanes = self._lanes
        output.read_by(lanes.download)
        host = self._outgoing.popleft()
        size = self._sizes.target_layout.bytes
        with lanes.span(lanes.download, "download"):
            lanes.device.download(host.memory, output.tensor.address, size, lanes.download)
        host.copied_by(lanes.download)
        output.give_back(lanes.download)
        self._pending.append((host, source))

    def drain(self) -> Iterator[Frame]:
        """The frames that are on their way."""
        while self._pending:
            yield self._oldest()

    def begin(self) -> None:
        """Nothing is on its way any more: a shot begins, perhaps after one that was given up."""
        rings = (self._sources, self._x, self._restored, self._outputs)
        held = [ring.take_back() for ring in rings]
        if any(held):
            self._lanes.meet()
        self._outgoing.extend(host for host, _ in self._pending)
        self._pending.clear()

    def _oldest(self) -> Frame:
        host, source = self._pending.popleft()
        host.wait()
        planes = self._sizes.target_layout.get(host.memory.array())
        self._outgoing.append(host)
        return Frame(planes, source.pts, source.duration)

    def _frame(self, slot: Slot, number: int, count: int) -> Region:
        return self._frames(slot, range(number, number + 1), count)

    def _frames(self, slot: Slot, part: range, count: int) -> Region:
        """Some of the `count` frames that a slot, made for a step, holds."""
        sizes = slot.tensor.shape()
        return slot.tensor.part(0, (1, sizes[1], count, *sizes[3:]), slot.tensor.kind).region(part)


class _ToModel:
    """to_model on one stream: planes in fixed places to x in a fixed place."""

    def __init__(
        self, lanes: Lanes, stream: int, session: DeviceSession, inputs: Inputs, sizes: LoopSizes
    ) -> None:
        self._lanes, self._stream, self._layout = lanes, stream, sizes.source_layout
        self._x = place(lanes, session, "x")
        self._planes = {name: place(lanes, session, name) for name in "yuv"}
        places = {"x": self._x, **self._planes, **_constants(lanes, session, inputs)}
        self._call = Call(lanes, stream, ("to_model", session), places)

    def run(self, source: Slot) -> OnDevice:
        """x [1, 3, 1, Hp, Wp] of the frame that lies in a slot, until the next call."""
        for name, plane in self._layout.on_device(source.tensor).items():
            self._lanes.device.move(self._planes[name].region(), plane.region(), self._stream)
        self._call.run()
        return self._x


class _ToVideo:
    """to_video on the post stream, with the source's own picture where it is looked at."""

    def __init__(self, lanes: Lanes, sessions: PixelSessions, sizes: LoopSizes) -> None:
        self._lanes = lanes
        session, self._reference = sessions.post, None
        self._x = place(lanes, session, "x")
        places: dict[str, OnDevice] = {"x": self._x}
        if "reference" in session.inputs:
            self._seen = places["reference"] = place(lanes, session, "reference")
        if sessions.reference is not None:
            inputs = sessions.to_model_inputs
            self._reference = _ToModel(lanes, lanes.post, sessions.reference, inputs, sizes)
        self._layout = sizes.target_layout
        self._planes = {name: place(lanes, session, name) for name in "yuv"}
        places |= self._planes
        places |= _constants(lanes, session, sessions.to_video_inputs)
        self._call = Call(lanes, lanes.post, ("to_video", session), places)

    def run(self, x: Region, source: Slot, output: Slot) -> None:
        """One frame of x, and its source, to planes in a slot."""
        lanes = self._lanes
        lanes.device.move(self._x.region(range(1)), x, lanes.post)
        if self._reference is not None:
            seen = self._reference.run(source)
            lanes.device.move(self._seen.region(), seen.region(), lanes.post)
        self._call.run()
        for name, plane in self._layout.on_device(output.tensor).items():
            lanes.device.move(plane.region(), self._planes[name].region(), lanes.post)


def _constants(lanes: Lanes, session: DeviceSession, inputs: Inputs) -> dict[str, OnDevice]:
    """What is the same for every frame, on the device, as far as the session asks for it."""
    places: dict[str, OnDevice] = {}
    for name, value in inputs.items():
        if name in session.inputs:
            constant = place(lanes, session, name)
            constant.put(value)
            places[name] = constant
    lanes.device.synchronize(lanes.main)
    return places
