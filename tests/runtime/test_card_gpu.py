"""Frames on a real card between NVDEC, our kernels and NVENC. Never executed by us.

Where the card has no such codec (H100 and A100 have no NVENC) a test skips itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from tests.pictures import YUV420

from vr_trt.runtime.card_trials import MOST_HELD, why_not_decoded, why_not_encoded
from vr_trt.runtime.cuda import CudaDevice
from vr_trt.runtime.device_decoded import DecodedPicture, DecodedPictures
from vr_trt.runtime.device_encoding import EncoderFrames
from vr_trt.runtime.device_ring import Ring
from vr_trt.runtime.device_tensor import DeviceTensor
from vr_trt.runtime.encode import OutputSpec, SegmentEncoder
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.frame_digest import _row_sums, frame_digest, weights
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.gpu_codecs import probe_decoder, probe_encoder
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.plane_layout import PlaneLayout
from vr_trt.runtime.planes import Planes, take_planes
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.region import Grid

pytestmark = pytest.mark.gpu

MakeClip = Callable[..., Path]
SIZE = 640, 368


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    device = CudaDevice()
    lanes = Lanes(device, device.stream())
    yield lanes
    lanes.close()


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_the_kernels_that_ship(lanes: Lanes, kind: str) -> None:
    """Turned, shifted, and summed up row by row: as on the host."""
    device, stream = lanes.device, lanes.main
    top = 1 << (8 if kind == "uint8" else 10)
    codes = np.random.default_rng(0).integers(0, top, (301, 203)).astype(kind)
    came, goes = (DeviceTensor(device, stream, sizes, kind) for sizes in (codes.shape, (203, 301)))
    came.put(codes)
    there = Grid(came.address, kind, 301, 203, 203).turned(90, mirrored=True)
    up = 0 if kind == "uint8" else 6
    device.place(Grid(goes.address, kind, 203, 301, 301), there, up, stream)
    upright = np.ascontiguousarray(np.rot90(codes, -1)[:, ::-1])
    np.testing.assert_array_equal(goes.numpy(), upright << up)
    factors, sums = (DeviceTensor(device, stream, (n,), "int64") for n in (301, 203))
    factors.put(weights(301))
    device.digest(sums.address, there, factors.address, stream)
    np.testing.assert_array_equal(sums.numpy(), _row_sums(upright))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "maker"),
    [("h264", "yuv420p", "libx264"), ("hevc", "yuv420p10le", "libx265")],
)
def test_nvdec_leaves_frames_there(
    tmp_path: Path, make_clip: MakeClip, lanes: Lanes, codec: str, pix_fmt: str, maker: str
) -> None:
    """All of a clip, while the card is busy: a race would spoil some."""
    if reason := probe_decoder(codec, pix_fmt, maker):
        pytest.skip(reason)
    clip = make_clip(tmp_path / "in.mkv", codec=maker, pix_fmt=pix_fmt, size=SIZE, frames=120)
    info = replace(probe(clip), nvdec=True)
    assert why_not_decoded(info) == ""
    layout = PlaneLayout.of(info.pixel, info.width, info.height)
    slots = [lanes.tensor((layout.bytes,), "uint8") for _ in range(120)]
    busy = lanes.tensor((1 << 28,), "uint8")
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    decoded = DecodedPictures(lanes, source, (0, False))
    with Reader(clip, info, on_card=decoded) as reader:
        for frame, slot in zip(reader, slots, strict=True):
            for _ in range(3):
                half = busy.part(1 << 27, (1 << 27,), "uint8").region()
                lanes.device.move(half, busy.part(0, (1 << 27,), "uint8").region(), lanes.upload)
            assert isinstance(frame.content, DecodedPicture)
            frame.content.copy(layout.grids(slot), lanes.upload)
    lanes.device.synchronize(lanes.upload)
    with Reader(clip, replace(info, nvdec=False)) as reader:
        for frame, slot in zip(reader, slots, strict=True):
            ours = Frame(layout.get(slot.numpy()), frame.pts, frame.duration)
            assert frame_digest(ours) == frame_digest(frame)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("bits", [8, 10])
def test_nvenc_takes_frames_from_there(
    tmp_path: Path, make_clip: MakeClip, lanes: Lanes, codec: str, bits: int
) -> None:
    """Every frame is another grey: one that was overwritten too early would show another's."""
    pixel = replace(YUV420, bits=bits)
    spec = OutputSpec(
        path=tmp_path / "x.mkv", width=SIZE[0], height=SIZE[1], pixel=pixel, codec=codec, nvenc=True
    )
    if reason := probe_encoder(spec.coder.encoder, spec.format_name):
        pytest.skip(reason)
    info = probe(make_clip(tmp_path / "in.mp4", size=SIZE, frames=2))
    reason, held = why_not_encoded(spec, info)
    assert reason == "" and 0 < held <= MOST_HELD
    planes = PlaneLayout.of(pixel, *SIZE)
    layout = EncoderLayout(SIZE[1], SIZE[0], pixel.dtype.name, bits)
    frames = EncoderFrames(lanes, layout, held + 2)
    outputs = Ring(lanes, "output frames", 3, (planes.bytes,), "uint8")
    encoder, packets = SegmentEncoder(spec, info), []
    for number in range(90):
        slot = outputs.take(lanes.post)
        lanes.device.copy_in(slot.tensor.address, _grey(planes, number, bits), lanes.post)
        slot.filled(lanes.post)
        packets += encoder.encode(Frame(frames.fill(slot, planes), number, 1))
    packets += encoder.drain()
    decoder = av.CodecContext.create(codec if codec != "av1" else "libdav1d", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = encoder.header
    encoder.close()
    shown = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert [frame.pts for frame in shown] == list(range(90))
    for number, frame in enumerate(shown):
        luma = take_planes(frame)[0].astype(np.float64).mean() / (1 << (bits - 8))
        assert abs(luma - _level(number)) < 3


def _level(number: int) -> int:
    """Far from its neighbours'."""
    return 20 + 67 * number % 200


def _grey(
    layout: PlaneLayout, number: int, bits: int
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    memory = np.zeros(layout.bytes, np.uint8)
    levels = (_level(number), 128, 128)
    made = [
        np.full(shape, level << (bits - 8), layout.kind)
        for shape, level in zip(layout.shapes, levels, strict=True)
    ]
    content: Planes = made[0], made[1], made[2]
    layout.put(content, memory)
    return memory
