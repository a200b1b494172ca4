"""One encoder: exact timestamps, full colour tags, the same bits for the same frames."""

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import Frame, PixelFormat, VideoInfo
from vr_trt.runtime.hdr import HdrMetadata
from vr_trt.runtime.packing import planar_name
from vr_trt.runtime.planes import build_frame
from vr_trt.runtime.tags import RANGE_FULL, RANGE_LIMITED, matrix_code
from vr_trt.runtime.video_codecs import CODECS, NVENC, Codec, check_quality

LARGEST_SIDE = 16384
# Of x264 and x265, whose output depends on this number: so the machine must not choose it.
ENCODER_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """What to write: the file, its pictures, and the encoder's settings."""

    path: Path
    width: int
    height: int
    pixel: PixelFormat  # of the frames that will be written; see `colour.output_pixel`
    codec: str = "h264"  # video only, as are the next three
    crf: float | None = None
    preset: str | None = None
    bitrate: int | None = None  # bits a second
    overwrite: bool = False
    copy_audio: bool = True
    clipped: bool = False  # a part of the input: so are the copied streams
    nvenc: bool = False  # the codec's encoder is the GPU's

    def __post_init__(self) -> None:
        check_quality(self.coder, self.crf, self.preset, self.bitrate)
        if not (1 <= self.width <= LARGEST_SIDE and 1 <= self.height <= LARGEST_SIDE):
            raise UsageError(
                f"{self.width}x{self.height} cannot be written; "
                f"a side has 1 to {LARGEST_SIDE} pixels"
            )

    @property
    def coder(self) -> Codec:
        """The codec with its encoder."""
        return (NVENC if self.nvenc else CODECS)[self.codec]

    @property
    def format_name(self) -> str:
        """FFmpeg's name of the pixel format that the encoder takes."""
        return format_name(self.coder, self.pixel)


def format_name(codec: Codec, pixel: PixelFormat) -> str:
    """FFmpeg's name of the pixel format that an encoder takes."""
    if codec.hardware and pixel.bits > 8:
        return "p010le"  # planar formats of 10 bits are none of NVENC's
    return planar_name("yuv", pixel.bits, pixel.chroma)


def check_format(target: OutputSpec) -> None:
    """ValueError for frames that the codec does not take: our own mistake, not a user's."""
    pixel, codec = target.pixel, target.coder
    if pixel.layout != "yuv":
        raise ValueError(f"video is written as yuv, not {pixel.layout}")
    if target.width % pixel.chroma[0] or target.height % pixel.chroma[1]:
        raise ValueError(f"{target.width}x{target.height} needs 4:4:4, not {pixel.chroma}")
    if pixel.bits not in codec.bits or pixel.chroma not in codec.chroma:
        raise ValueError(f"{codec.name} does not take {target.format_name}")


def configure(context: VideoCodecContext, target: OutputSpec, source: VideoInfo) -> None:
    """Set everything about an encoder that is not open yet."""
    codec, pixel = target.coder, target.pixel
    context.width, context.height = target.width, target.height
    if target.codec in ("h264", "hevc"):
        context.thread_count = ENCODER_THREADS
    context.pix_fmt = target.format_name
    context.time_base = source.time_base
    context.framerate = source.frame_rate.limit_denominator(100_000)
    context.flags |= Flags.frame_duration  # the last frame's length reaches the container
    context.sample_aspect_ratio = source.sample_aspect
    context.color_range = RANGE_FULL if pixel.full_range else RANGE_LIMITED
    context.colorspace = matrix_code(pixel)
    context.color_primaries = pixel.primaries
    context.color_trc = pixel.transfer
    if target.bitrate is not None:
        context.bit_rate = target.bitrate
    context.options = _options(codec, target, source.hdr)


def _options(codec: Codec, target: OutputSpec, hdr: HdrMetadata | None) -> dict[str, str]:
    options: dict[str, str] = {"chroma_sample_location": target.pixel.siting}
    if codec.presets:
        options[codec.preset_option] = codec.preset_for(target.preset or codec.preset)
    if codec.hardware:
        return options | _nvenc_options(codec, target)
    if codec.highest_crf and target.bitrate is None:
        options["crf"] = str(codec.crf if target.crf is None else target.crf)
    if codec.name == "h264":
        options |= _x264_options()
    if codec.name == "hevc":
        options["x265-params"] = ":".join(["log-level=none", *(hdr.x265() if hdr else [])])
    if codec.name == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it writes to standard error itself
        if hdr is not None:
            options["svtav1-params"] = ":".join(hdr.svt_av1())
    if codec.name == "ffv1":
        options |= {"level": "3", "slices": "4", "slicecrc": "1"}
    if codec.name == "prores" and target.pixel.chroma == (1, 1):
        options["profile"] = "4444"
    return options


def _nvenc_options(codec: Codec, target: OutputSpec) -> dict[str, str]:
    """Constant quality, or a rate; 0 would leave the quality to the encoder."""
    options = {"tune": "hq", "rc": "vbr", "spatial-aq": "1"}
    if target.bitrate is None:
        quality = codec.crf if target.crf is None else target.crf
        options |= {"cq": str(max(1, quality)), "b": "0"}
    return options


@cache
def _x264_options() -> dict[str, str]:
    """What makes x264 give the same bits for the same frames.

    Its macroblock tree differed from run to run on CPUs with AVX-512, at about half of the picture
    sizes that were tried, and at none with AVX2's code. Where the CPU is unknown, the tree is off.
    """
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {"x264-params": "mbtree=0"}
    return {"x264-params": "asm=avx2"} if "avx512" in known else {}


def open_encoder(target: OutputSpec) -> VideoCodecContext:
    """PyAV's encoder, of which nothing is set yet."""
    context = av.CodecContext.create(target.coder.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    return context


@runtime_checkable
class LendableOnCard(Protocol):
    """A picture on a card that FFmpeg can take where it is."""

    def av_frame(self) -> av.VideoFrame:
        """A frame of FFmpeg in the card's memory, of its pixel format `cuda`."""


def av_frame(frame: Frame, target: OutputSpec, time_base: Fraction) -> av.VideoFrame:
    """The frame as FFmpeg's, with its time and its colour said; one on a card stays there."""
    if isinstance(frame.content, LendableOnCard):
        picture = frame.content.av_frame()
    else:
        picture = build_frame(frame.planes, target.format_name)
    picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, time_base
    picture.colorspace = matrix_code(target.pixel)
    picture.color_range = RANGE_FULL if target.pixel.full_range else RANGE_LIMITED
    picture.color_primaries = target.pixel.primaries
    picture.color_trc = target.pixel.transfer
    return picture


class SegmentEncoder:
    """An encoder of its own for one segment: what it makes depends on the segment's frames alone."""

    def __init__(self, target: OutputSpec, source: VideoInfo) -> None:
        context = open_encoder(target)
        configure(context, target, source)
        context.flags |= Flags.global_header
        self._context = context
        self._target = target
        self._time_base = source.time_base

    @property
    def header(self) -> bytes:
        """What the container's header holds of the stream: parameter sets and their like."""
        return bytes(self._context.extradata or b"")

    def encode(self, frame: Frame) -> "list[Packet[VideoStream]]":
        """Packets that are ready after one more frame."""
        if not self._context.is_open and isinstance(frame.content, LendableOnCard):
            self._context.pix_fmt = "cuda"  # and what lies there is taken from the first frame
        return self._context.encode(av_frame(frame, self._target, self._time_base))

    def close(self) -> None:
        """Give up the encoder and the frames that it holds."""
        del self._context

    def drain(self) -> "list[Packet[VideoStream]]":
        """The packets that the encoder still holds."""
        return self._context.encode(None)
