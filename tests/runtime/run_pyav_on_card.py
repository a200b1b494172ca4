"""PyAV's own code with frames on a card, whose driver is a stand-in; run by test_pyav_on_card."""

import ctypes
import gc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import CudaContext, VideoFrame
from tests.codec_stand_ins import packed
from tests.pictures import YUV420
from tests.recorded_device import RecordedDevice

from vr_trt.runtime import dlpack
from vr_trt.runtime.device_decoded import DecodedPictures
from vr_trt.runtime.encode import OutputSpec, SegmentEncoder
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.gpu_codecs import NVDEC_ON_CARD, _context
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.planes import take_planes

WIDE, HIGH = 70, 50


class Owner:
    """Whose memory it is."""


class Memory:
    """A picture in what the driver takes for the card's memory."""

    def __init__(self, bits: int) -> None:
        kind, top = ("uint8", 1 << 8) if bits == 8 else ("uint16", 1 << bits)
        self.layout = EncoderLayout(HIGH, WIDE, kind, bits)
        random = np.random.default_rng(bits)
        shapes = (HIGH, WIDE), (HIGH // 2, WIDE // 2), (HIGH // 2, WIDE // 2)
        self.planes: Any = tuple(random.integers(0, top, shape).astype(kind) for shape in shapes)
        self.content = packed(self.planes, self.layout)
        self.address = self.content.ctypes.data

    def frame(self, owner: object) -> VideoFrame:
        context = CudaContext(primary_ctx=False, current_ctx=True, cuda_stream=0x1234)
        lent = self.layout.lent(self.address, owner)
        return VideoFrame.from_dlpack(lent, format=self.layout.format_name, cuda_context=context)


@pytest.fixture(params=[8, 10])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


def test_memory_becomes_a_frame_and_comes_back(memory: Memory) -> None:
    frame = memory.frame(Owner())
    gc.collect()

    def alive() -> list[Owner]:
        return [x for held in dlpack._lent.values() for x in held if isinstance(x, Owner)]

    assert frame.format.name == "cuda" and frame.sw_format is not None
    assert frame.sw_format.name == memory.layout.format_name
    assert (frame.width, frame.height, len(alive())) == (WIDE, HIGH, 2)
    chroma = memory.address + memory.layout.pitch * HIGH
    assert [plane.buffer_ptr for plane in frame.planes] == [memory.address, chroma]
    assert [plane.line_size for plane in frame.planes] == [memory.layout.pitch] * 2
    del frame
    assert alive() == []


def test_what_a_decoder_leaves_is_found_and_can_be_had(memory: Memory) -> None:
    frame = memory.frame(Owner())
    pixel = replace(YUV420, bits=memory.layout.bits)
    device = RecordedDevice()
    lanes = Lanes(device, device.stream())
    source = Picture(width=WIDE, height=HIGH, pixel=pixel)
    owner = DecodedPictures(lanes, source, (0, False), decoder=lanes.main)
    name = memory.layout.format_name
    picture = owner.take(frame, lambda: take_planes(frame.reformat(format=name)))
    assert picture.grids == memory.layout.grids(memory.address)
    for ours, theirs in zip(picture.planes(), memory.planes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lanes.close()


def test_the_encoder_takes_it_as_far_as_there_is_one(memory: Memory, tmp_path: Path) -> None:
    """All is accepted until NVENC's own library is loaded, which is not there."""
    with pytest.raises(OSError):
        ctypes.CDLL("libnvidia-encode.so.1")
    pixel = replace(YUV420, bits=memory.layout.bits)
    spec = OutputSpec(
        path=tmp_path / "x.mkv", width=WIDE, height=HIGH, pixel=pixel, codec="hevc", nvenc=True
    )
    info: Any = SimpleNamespace(
        time_base=Fraction(1, 25), frame_rate=Fraction(25), sample_aspect=Fraction(1), hdr=None
    )
    assert set(vars(info)) <= set(VideoInfo.__dataclass_fields__)
    encoder = SegmentEncoder(spec, info)
    content: Any = SimpleNamespace(av_frame=lambda: memory.frame(Owner()), shape=(HIGH, WIDE))
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as said, pytest.raises(av.FFmpegError):
        encoder.encode(Frame(content, 0, 1))
    av.logging.set_level(level)
    assert "Cannot load libnvidia-encode" in said[0][2]
    encoder.close()


def test_nvdec_is_opened_in_the_context_that_is_there() -> None:
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    with av.logging.Capture() as said:
        context = _context("h264", b"", NVDEC_ON_CARD)
    av.logging.set_level(level)
    assert context.is_hwaccel and context.pix_fmt == "cuda"
    assert "Using current CUDA context.\n" in [line for _, _, line in said]
    del context  # the driver would notice if what is ours were given back with it
    gc.collect()
