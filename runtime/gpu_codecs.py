"""NVENC and NVDEC through PyAV: found out by using them once, never by a table of cards.

Never executed by us on a GPU. Frames pass through the host's memory here: NVDEC's are downloaded by
FFmpeg, as NV12 or P010, and NVENC's are uploaded by it. Where the loop runs on the card they can
stay there: runtime/card_trials.py.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.runtime.encode import format_name
from vr_trt.runtime.frames import PixelFormat, VideoInfo
from vr_trt.runtime.media import main_video, open_input
from vr_trt.runtime.planes import build_frame
from vr_trt.runtime.video_codecs import NVENC, Codec

CHOICES = ("auto", "nvenc", "software")
DECODERS = ("auto", "nvdec", "software")
SIZE = 320, 192  # of a trial: tiny, and larger than every codec's least
NVDEC: dict[str, Any] = {}
# The loop's own context, which is CUDA's primary one: with `primary_ctx` FFmpeg would refuse it for
# the flags that others gave it, and in a context of its own it could not see the loop's memory.
NVDEC_ON_CARD: dict[str, Any] = {
    "is_hw_owned": True,
    "options": {"primary_ctx": "0", "current_ctx": "1"},
}
_TRIAL_FRAMES = 4  # packets of a file that may pass before a picture must have come
_MOST_PACKETS = 64
_OWN_NAMES = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}  # those have no NVDEC way
# What doctor tries: NVDEC's codec and pixel format, and the software that makes a trial picture.
TRIALS = (
    ("h264", "yuv420p", "libx264"),
    ("h264", "yuv420p10le", "libx264"),
    ("hevc", "yuv420p", "libx265"),
    ("hevc", "yuv420p10le", "libx265"),
    ("av1", "yuv420p", "libsvtav1"),
    ("vp9", "yuv420p", "libvpx-vp9"),
)


def choose_encoder(wanted: str, codec: Codec, pixel: PixelFormat) -> tuple[Codec, str]:
    """The codec by NVENC or by software, and a line where that is not what one would expect.

    UsageError for an unknown choice, and for NVENC where it was asked for and is not there.
    """
    if wanted not in CHOICES:
        raise UsageError(f"unknown encoder {wanted!r}: choose one of {', '.join(CHOICES)}")
    if wanted == "software" or (wanted == "auto" and present_gpu() is None):
        return codec, ""
    reason = _why_not_nvenc(codec, pixel)
    if not reason:
        return NVENC[codec.name], ""
    if wanted == "nvenc":
        raise UsageError(f"no NVENC for this output: {reason}; use --encoder software")
    return codec, f"encoded by {codec.encoder} on the CPU: {reason}"


def _why_not_nvenc(codec: Codec, pixel: PixelFormat) -> str:
    hardware = NVENC.get(codec.name)
    if hardware is None:
        return f"NVENC has no {codec.name}"
    if pixel.chroma not in hardware.chroma:
        return f"{hardware.encoder} is given 4:2:0 only, and the size is odd"
    return probe_encoder(hardware.encoder, format_name(hardware, pixel))


@cache
def probe_encoder(encoder: str, pix_fmt: str) -> str:
    """Encode one picture; "" if that works, else why not."""

    def trial() -> int:
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, VideoCodecContext)
        return len(_encoded(context, pix_fmt))

    return tried(f"{encoder} in {pix_fmt}", trial)


@cache
def probe_decoder(
    codec: str, pix_fmt: str, maker: str, hardware: bool = True, on_card: bool = False
) -> str:
    """Decode one picture that the software encoder `maker` made; "" if that works, else why not.

    `on_card`: it must stay in the card's memory, in the context that the calling thread has.
    """

    def trial() -> int:
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it writes to standard error itself
        coder = av.CodecContext.create(maker, "w")
        assert isinstance(coder, VideoCodecContext)
        packets = _encoded(coder, pix_fmt)
        options = NVDEC_ON_CARD if on_card else NVDEC
        context = _context(codec, coder.extradata, options if hardware else None)
        frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
        return sum((frame.format.name == "cuda") == on_card for frame in frames)

    return tried(f"NVDEC of {codec} in {pix_fmt}", trial)


def choose_decoder(wanted: str, info: VideoInfo) -> tuple[bool, str]:
    """Whether NVDEC decodes this very file, and a line where that is not what one would expect.

    UsageError for an unknown choice, and for NVDEC where it was asked for and cannot.
    """
    if wanted not in DECODERS:
        raise UsageError(f"unknown decoder {wanted!r}: choose one of {', '.join(DECODERS)}")
    if wanted == "software" or (wanted == "auto" and present_gpu() is None):
        return False, ""
    reason = _why_not_nvdec(info)
    if reason and wanted == "nvdec":
        raise UsageError(f"{info.path}: {reason}; use --decoder software")
    plain = info.is_image or info.solitary or info.deinterlace
    return not reason, "" if plain or not reason else f"decoded on the CPU: {reason}"


def _why_not_nvdec(info: VideoInfo) -> str:
    if info.is_image or info.solitary:
        return "NVDEC is for video files"
    if info.deinterlace:
        return "what is deinterlaced is decoded on the CPU"
    if info.pixel.layout != "yuv" or info.pixel.chroma != (2, 2):
        return "NVDEC's pictures can be read in 4:2:0 only"
    with open_input(info.path) as container:
        stream = main_video(container, info.path)
        stream_codec = stream.codec_context.name

        def trial() -> int:
            context = nvdec_context(stream)
            found = 0
            for number, packet in enumerate(container.demux(stream)):
                found += len(context.decode(packet)) if packet.size else 0
                if found >= _TRIAL_FRAMES or number >= _MOST_PACKETS:
                    break
            return found or len(context.decode(None))

        return tried(f"NVDEC of {stream_codec} in {info.pixel.bits} bits", trial)


def nvdec_context(stream: VideoStream, on_card: bool = False) -> VideoCodecContext:
    """A decoder of its own for a stream: PyAV's is often a library that knows no NVDEC.

    `on_card`: frames stay in the card's memory, in the context that the calling thread has.
    """
    name, extradata = stream.codec_context.name, stream.codec_context.extradata
    return _context(_OWN_NAMES.get(name, name), extradata, NVDEC_ON_CARD if on_card else NVDEC)


def _context(
    codec: str, extradata: bytes | None, options: dict[str, Any] | None
) -> VideoCodecContext:
    """`options` of PyAV's HWAccel; None decodes in software."""
    way = None if options is None else HWAccel("cuda", allow_software_fallback=False, **options)
    context = av.CodecContext.create(codec, "r", hwaccel=way)
    assert isinstance(context, VideoCodecContext)
    context.extradata = extradata
    return context


def _encoded(context: VideoCodecContext, pix_fmt: str) -> list[Any]:
    """Packets of one grey picture."""
    context.width, context.height = SIZE
    context.pix_fmt = pix_fmt
    context.time_base = Fraction(1, 25)
    context.framerate = Fraction(25)
    context.flags |= Flags.global_header  # a decoder of its own needs one
    kind = np.uint16 if "10" in pix_fmt else np.uint8
    grey = [np.full((SIZE[1] // by, SIZE[0] // by), 64, kind) for by in (1, 2, 2)]
    frame = build_frame((grey[0], grey[1], grey[2]), pix_fmt)
    frame.pts = 0
    return [*context.encode(frame), *context.encode(None)]


def tried(name: str, trial: Callable[[], int]) -> str:
    """ "" if the trial gives something, else one line that says why not."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            if trial():
                return ""
        return f"{name} gives no picture"
    except (av.FFmpegError, ValueError, RuntimeError, NotImplementedError, VrTrtError) as error:
        last = said[-1][2].strip() if said else getattr(error, "strerror", None) or str(error)
        return f"{name} does not work here ({' '.join(last.split())})"
    finally:
        av.logging.set_level(level)


def codec_lines() -> dict[str, list[str]]:
    """What works of NVENC and of NVDEC here, a line each; why the rest does not."""
    encoders = [
        probe_encoder(codec.encoder, pix_fmt) or f"{codec.encoder} in {pix_fmt} works"
        for codec in NVENC.values()
        for pix_fmt in ("yuv420p", "p010le")
    ]
    decoders = [
        probe_decoder(*trial) or f"NVDEC of {trial[0]} in {trial[1]} works" for trial in TRIALS
    ]
    return {"NVENC": encoders, "NVDEC": decoders}
