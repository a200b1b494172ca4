"""One picture as an image file."""

from fractions import Fraction
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext

from vr_trt.errors import UsageError
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.planes import build_frame
from vr_trt.runtime.publish import IMAGE_CODECS, partial_path
from vr_trt.runtime.tags import RANGE_FULL, RANGE_LIMITED, matrix_code

_JPEG_SCALE = 2 * 118  # quantiser 2 (1 finest, 31 coarsest) in FFmpeg's units
_WEBP_QUALITY = "95"


def check_image_codec(path: Path) -> None:
    """Raise UsageError if this build of FFmpeg cannot write that kind of image."""
    name = IMAGE_CODECS[path.suffix.lower()]
    if name not in av.codecs_available:
        raise UsageError(f"{path}: the encoder {name} is missing here; write a .png")


def encode_image(
    frame: Frame,
    pixel: PixelFormat,  # rgb in 8 or 16 bits; for JPEG and WebP yuv in 8
    suffix: str,
) -> bytes:
    """The bytes of an image file that holds the frame. Raises av.FFmpegError."""
    name = IMAGE_CODECS[suffix.lower()]
    picture = build_frame(frame.planes, _format_name(name, pixel))
    picture.colorspace = matrix_code(pixel)
    picture.color_range = RANGE_FULL if pixel.full_range else RANGE_LIMITED
    picture.color_primaries = pixel.primaries
    picture.color_trc = pixel.transfer
    picture.pts = 0
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = picture.width, picture.height
    context.pix_fmt = picture.format.name
    context.framerate = Fraction(1)
    context.color_range = picture.color_range
    context.colorspace = picture.colorspace
    if name == "mjpeg":
        context.qscale = True
        context.global_quality = _JPEG_SCALE
    if name == "libwebp":
        context.options = {"quality": _WEBP_QUALITY}
    packets = context.encode(picture) + context.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def _format_name(codec: str, pixel: PixelFormat) -> str:
    """FFmpeg's pixel format for the encoder. Raises ValueError for one that it cannot take."""
    kind = (pixel.layout, pixel.bits, pixel.chroma, pixel.full_range)
    names = {
        ("png", ("rgb", 8, (1, 1), True)): "rgb24",
        ("png", ("rgb", 16, (1, 1), True)): "rgb48be",
        ("tiff", ("rgb", 8, (1, 1), True)): "rgb24",
        ("tiff", ("rgb", 16, (1, 1), True)): "rgb48le",
        ("mjpeg", ("yuv", 8, (1, 1), True)): "yuvj444p",
        ("mjpeg", ("yuv", 8, (2, 2), True)): "yuvj420p",
        ("libwebp", ("yuv", 8, (2, 2), False)): "yuv420p",
    }
    if (codec, kind) not in names:
        raise ValueError(f"{codec} cannot write {kind}")
    return names[codec, kind]


class ImageSink:
    """The partial file of an image output. Methods raise OSError or av.FFmpegError."""

    def __init__(self, target: OutputSpec) -> None:
        self._target = target
        self._data = b""
        partial_path(target.path).touch()  # fails now rather than after the work

    def write(self, frame: Frame) -> None:
        """Encode the one frame. Raises UsageError for a second one."""
        if self._data:
            raise UsageError(f"{self._target.path}: an image holds one frame: write a video")
        self._data = encode_image(frame, self._target.pixel, self._target.path.suffix)

    def finish(self) -> None:
        """Write the file."""
        partial_path(self._target.path).write_bytes(self._data)

    def discard(self) -> None:
        """Nothing is open."""
