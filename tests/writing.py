"""Writing files for tests: outputs, flat pictures, and what lies in the result."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.frames import PixelFormat, VideoInfo
from vr_trt.runtime.planes import Planes
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.writer import OutputSpec, Writer

MakeClip = Callable[..., Path]
MakePicture = Callable[[int, int, int, str], Planes]


def spec(path: Path, info: VideoInfo, **choices: Any) -> OutputSpec:
    """An output of the input's size."""
    width, height = choices.pop("size", (info.width, info.height))
    image = path.suffix in (".png", ".jpg", ".webp", ".tiff")
    pixel = output_pixel(info.pixel, width, height, image, path.suffix)
    return OutputSpec(
        path=path, width=width, height=height, **{"pixel": pixel, "crf": 0, **choices}
    )


def flat_planes(pixel: PixelFormat, width: int, height: int, code: int = 90) -> Planes:
    planes = [np.full(shape, code, pixel.dtype) for shape in pixel.plane_shapes(width, height)]
    return planes[0], planes[1], planes[2]


def copy_through(source: Path, target: Path, **choices: Any) -> Writer:
    """Write the frames of a video again: as they are where the format allows, else flat ones."""
    info = probe(source)
    out = spec(target, info, **choices)
    same = (out.pixel.chroma, out.pixel.bits) == (info.pixel.chroma, info.pixel.bits)
    with Reader(source, info) as reader, Writer(out, info) as writer:
        for frame in reader:
            planes = frame.planes if same else flat_planes(out.pixel, out.width, out.height)
            writer.write(replace(frame, content=planes))
    return writer


def times(path: Path) -> list[Fraction]:
    """Seconds at which each frame is shown, and at which the last one ends."""
    with Reader(path) as reader:
        base = reader.info.time_base
        shown = [(frame.pts * base, frame.duration * base) for frame in reader]
    return [start for start, _ in shown] + [shown[-1][0] + shown[-1][1]]


def packets(path: Path, kind: str) -> list[tuple[bytes, float]]:
    """Payload and time of all packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [packet for packet in container.demux(stream) if packet.size]
        return [(bytes(p), float((p.pts or 0) * p.time_base)) for p in found]


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if "partial" in path.name]


def one_png() -> bytes:
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.framerate = 8, 8, "rgb24", Fraction(1)
    packets = context.encode(av.VideoFrame(8, 8, "rgb24")) + context.encode(None)
    return b"".join(bytes(packet) for packet in packets)
