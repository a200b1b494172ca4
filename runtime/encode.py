"""H.264 by libx264: one stream with exact timestamps and the colour said everywhere."""

from dataclasses import dataclass
from pathlib import Path

from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import Frame, PixelFormat, VideoInfo
from vr_trt.runtime.packing import planar_name
from vr_trt.runtime.planes import build_frame
from vr_trt.runtime.tags import RANGE_FULL, RANGE_LIMITED, matrix_code

PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
HIGHEST_CRF = 51
LARGEST_SIDE = 16384


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """What to write: the file, the pictures in it, and how hard the encoder tries."""

    path: Path
    width: int
    height: int
    pixel: PixelFormat  # of the frames that will be written; see `colour.output_pixel`
    crf: float = 17  # 0 lossless … 51 worst; video only
    preset: str = "veryfast"
    overwrite: bool = False
    copy_audio: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= HIGHEST_CRF:
            raise UsageError(f"crf {self.crf} is not between 0 and {HIGHEST_CRF}")
        if self.preset not in PRESETS:
            raise UsageError(f"preset {self.preset!r} is unknown; one of {', '.join(PRESETS)}")
        if not (1 <= self.width <= LARGEST_SIDE and 1 <= self.height <= LARGEST_SIDE):
            raise UsageError(
                f"{self.width}x{self.height} cannot be written; "
                f"a side has 1 to {LARGEST_SIDE} pixels"
            )


class VideoEncoder:
    """Adds the video stream to an output and turns frames into its packets."""

    def __init__(self, output: OutputContainer, target: OutputSpec, source: VideoInfo) -> None:
        pixel = target.pixel
        if pixel.layout != "yuv":
            raise ValueError(f"video is written as yuv, not {pixel.layout}")
        if target.width % pixel.chroma[0] or target.height % pixel.chroma[1]:
            raise ValueError(f"{target.width}x{target.height} needs 4:4:4, not {pixel.chroma}")
        self._name = planar_name("yuv", pixel.bits, pixel.chroma)
        self._pixel = pixel
        self.time_base = source.time_base
        self._step = max(1, round(1 / (source.frame_rate * source.time_base)))
        self.stream = self._add_stream(output, target, source)

    def encode(self, frame: Frame, shift: int) -> "list[Packet[VideoStream]]":
        """Packets that are ready after one more frame, `shift` units earlier than its pts."""
        picture = build_frame(frame.planes, self._name)
        picture.pts = frame.pts - shift
        picture.duration = frame.duration or self._step
        picture.time_base = self.time_base
        picture.colorspace = matrix_code(self._pixel)
        picture.color_range = RANGE_FULL if self._pixel.full_range else RANGE_LIMITED
        picture.color_primaries = self._pixel.primaries
        picture.color_trc = self._pixel.transfer
        return self.stream.encode(picture)

    def drain(self) -> "list[Packet[VideoStream]]":
        """The packets that the encoder still holds."""
        return self.stream.encode(None)

    def _add_stream(
        self, output: OutputContainer, target: OutputSpec, source: VideoInfo
    ) -> VideoStream:
        options = {
            "crf": str(target.crf),
            "preset": target.preset,
            "chroma_sample_location": self._pixel.siting,
        }
        rate = source.frame_rate.limit_denominator(100_000)
        stream = output.add_stream("libx264", rate=rate, options=options)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = target.width, target.height, self._name
        stream.time_base = context.time_base = self.time_base
        context.flags |= Flags.frame_duration  # the last frame's length reaches the container
        context.sample_aspect_ratio = source.sample_aspect
        context.color_range = RANGE_FULL if self._pixel.full_range else RANGE_LIMITED
        context.colorspace = matrix_code(self._pixel)
        context.color_primaries = self._pixel.primaries
        context.color_trc = self._pixel.transfer
        return stream
