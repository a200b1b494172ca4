"""Whether frames can stay in the card's memory between its codecs and the loop: tried, not assumed.

Every piece of the way is used once, on the very film and with the very encoder: the first frames
are decoded by NVDEC both ways and compared to the last bit, and some pictures are encoded from a
slot's memory, which also tells how many frames the encoder holds at a time. Where anything is
missing or differs, frames cross the host as before, and a line says so.

Never executed by us on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from vr_trt.runtime.cuda import CudaDevice
from vr_trt.runtime.device_decoded import DecodedPicture, DecodedPictures
from vr_trt.runtime.device_encoding import EncoderFrames, EncoderPicture
from vr_trt.runtime.device_memory import CardWay, on_one_gpu
from vr_trt.runtime.device_ring import Ring
from vr_trt.runtime.encode import OutputSpec, SegmentEncoder
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.frames import USUAL_PIXEL, Frame, VideoInfo
from vr_trt.runtime.gpu_codecs import SIZE, probe_decoder, tried
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.pipe import DASH
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.plan import Plan, with_card_way
from vr_trt.runtime.plane_layout import PlaneLayout
from vr_trt.runtime.reader import Reader
from vr_trt.runtime.scene_cuts import thumbnail

_SOURCE = VideoInfo(
    path=Path("x.mkv"),
    width=SIZE[0],
    height=SIZE[1],
    pixel=USUAL_PIXEL,
    time_base=Fraction(1, 25),
    frame_rate=Fraction(25),
    frames=None,
    seconds=None,
    sample_aspect=Fraction(1),
    rotation=0,
    is_image=False,
    audio_streams=0,
    guesses=(),
)
FRAMES = 2  # of a film that are decoded both ways
MOST_HELD = 40  # frames that an encoder may have at a time; FFmpeg's own limit is 64


def choose_card_way(plan: Plan, spec: OutputSpec) -> Plan:
    """The plan with codecs that share frames with the loop, as far as they can and it fits."""
    source = plan.source
    encodes = spec.nvenc and spec.path != DASH
    if plan.frames == 1 or not on_one_gpu(plan.serving.selection):
        return plan
    lines, decoded, holds = [], False, None
    if source.nvdec:
        reason = why_not_decoded(source)
        decoded = not reason
        lines += [f"NVDEC's frames cross the host: {reason}"] if reason else []
    if encodes:
        reason, count = why_not_encoded(spec, source)
        holds = None if reason else count
        lines += [f"NVENC's frames cross the host: {reason}"] if reason else []
    way = CardWay(
        decoded=decoded,
        holds=holds,
        rotation=source.rotation,
        mirrored=source.mirrored,
        lines=tuple(lines),
    )
    planned = with_card_way(plan, way, spec.pixel)
    card = planned.serving.card
    if card is not None and not card.fits and (plan.serving.card is None or plan.serving.card.fits):
        plain = CardWay(lines=("frames cross the host: the card has no room for more of them",))
        return with_card_way(plan, plain, spec.pixel)
    return planned


def why_not_decoded(info: VideoInfo) -> str:
    """Decode the first frames both ways; "" if they are the same."""
    if info.pixel.chroma != (2, 2) or info.width % 2 or info.height % 2:
        return "a picture there has even sides, in 4:2:0"

    def trial() -> int:
        with _lanes() as lanes, Reader(info.path, info) as plain:
            source = Picture(width=info.width, height=info.height, pixel=info.pixel)
            decoded = DecodedPictures(lanes, source, (info.rotation, info.mirrored))
            with Reader(info.path, info, on_card=decoded) as reader:
                pairs = islice(zip(reader, plain, strict=False), FRAMES)
                return sum(_same(lanes, here, there, info) for here, there in pairs)

    return tried("NVDEC into the card's memory", trial)


def why_not_encoded(spec: OutputSpec, source: VideoInfo) -> tuple[str, int]:
    """Encode from a slot's memory; "" and the frames that are held at a time, if it works."""
    held = 0

    def trial() -> int:
        nonlocal held
        with _lanes() as lanes:
            held, packets = _encoded(_grey(lanes, spec), spec, source)
        return packets

    reason = tried(f"{spec.coder.encoder} from the card's memory", trial)
    if not reason and held > MOST_HELD:
        reason = f"{spec.coder.encoder} holds more than {MOST_HELD} frames at a time"
    return reason, held


def card_lines() -> list[str]:
    """Whether small pictures can stay on the card, from NVDEC and to NVENC, a line each."""

    def device() -> int:
        CudaDevice().use_in_thread()
        return 1

    spec = OutputSpec(
        path=Path("x.mkv"),
        width=SIZE[0],
        height=SIZE[1],
        pixel=USUAL_PIXEL,
        codec="h264",
        nvenc=True,
    )
    decoder = tried("CUDA", device) or probe_decoder("h264", "yuv420p", "libx264", on_card=True)
    encoder, _ = why_not_encoded(spec, _SOURCE)
    return [
        decoder or "NVDEC of h264 leaves frames there",
        encoder or f"{spec.coder.encoder} takes frames from there",
    ]


def _same(lanes: Lanes, here: Frame, there: Frame, info: VideoInfo) -> int:
    """1; ValueError where what is on the card differs from what FFmpeg brings to the host."""
    assert isinstance(here.content, DecodedPicture)
    layout = PlaneLayout.of(info.pixel, info.width, info.height)
    memory = lanes.tensor((layout.bytes,), "uint8")
    here.content.copy(layout.grids(memory), lanes.upload)
    lanes.device.synchronize(lanes.upload)
    planes = zip(layout.get(memory.numpy()), there.planes, strict=True)
    small = thumbnail(here, info.pixel), thumbnail(there, info.pixel)
    if not all(np.array_equal(ours, theirs) for ours, theirs in (*planes, small)):
        raise ValueError("its frames differ from those on the host")
    return 1


def _grey(lanes: Lanes, spec: OutputSpec) -> EncoderPicture:
    """A picture in a slot, of the size and format that will be encoded."""
    planes = PlaneLayout.of(spec.pixel, spec.width, spec.height)
    output = Ring(lanes, "trial", 1, (planes.bytes,), "uint8").take(lanes.post)
    lanes.device.copy_in(output.tensor.address, np.full(planes.bytes, 64, np.uint8), lanes.post)
    output.filled(lanes.post)
    layout = EncoderLayout(spec.height, spec.width, spec.pixel.dtype.name, spec.pixel.bits)
    return EncoderFrames(lanes, layout, 1).fill(output, planes)


def _encoded(picture: EncoderPicture, spec: OutputSpec, source: VideoInfo) -> tuple[int, int]:
    """Frames that the encoder holds at most, and the packets that came."""
    encoder, alive = SegmentEncoder(spec, source), _Alive()
    try:
        most = packets = 0
        for number in range(MOST_HELD + 8):
            packets += len(encoder.encode(Frame(_Again(picture, alive), number, 1)))
            most = max(most, alive.count)
        return most, packets + len(encoder.drain())
    finally:
        encoder.close()


class _Alive:
    """How many times a picture is lent now."""

    count = 0


class _Owner:
    """Held by FFmpeg for as long as it needs a frame."""

    def __init__(self, alive: _Alive) -> None:
        self._alive = alive
        alive.count += 1

    def __del__(self) -> None:
        self._alive.count -= 1


class _Again:
    """The same picture as a frame of its own."""

    def __init__(self, picture: EncoderPicture, alive: _Alive) -> None:
        self._picture, self._alive = picture, alive
        self.shape, self.planes = picture.shape, picture.planes

    def av_frame(self) -> VideoFrame:
        return self._picture.lend(_Owner(self._alive))


@contextmanager
def _lanes() -> Iterator[Lanes]:
    """Streams for a trial, and all that it takes."""
    device = CudaDevice()
    main = device.stream()
    lanes = Lanes(device, main)
    try:
        yield lanes
    finally:
        lanes.close()
        device.destroy_stream(main)
