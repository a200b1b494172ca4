"""The clips that are timed: the demo clip as it is, without its sound, in 10 bits; or a file.

`demo` is 8 bit H.264 with stereo AAC, `silent` the same pictures to the bit, `10-bit` the same scene
in 10 bit HEVC, which the tool writes in 10 bits too, with the same sound.
"""

from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from vr_trt.bench.clip_windows import demo_clip
from vr_trt.errors import UsageError
from vr_trt.runtime.planes import build_frame, take_planes

TEN_BIT_FORMAT = "yuv420p10le"
BT709 = LIMITED = 1  # H.273's code of matrix, primaries and transfer; FFmpeg's of the range
DEMO, SILENT, TEN_BIT = "demo", "silent", "10-bit"


def make_clip(name: str, folder: Path, frames: int) -> Path:
    """The path of the clip called `name`, made in `folder` if it is one of ours."""
    if name not in (DEMO, SILENT, TEN_BIT):
        if not Path(name).is_file():
            raise UsageError(
                f"{name} is not a file: give one, or {DEMO}, {SILENT} or {TEN_BIT} with --clip"
            )
        return Path(name)
    demo = folder / "demo.mp4"
    if not demo.exists():
        demo_clip(folder, frames)
    if name == DEMO:
        return demo
    path = folder / f"{name}.mkv"
    (_without_sound if name == SILENT else _in_ten_bits)(demo, path)
    return path


def _without_sound(demo: Path, path: Path) -> None:
    with av.open(str(demo)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        _copy(source, video, target, target.add_stream_from_template(video))


def _in_ten_bits(demo: Path, path: Path) -> None:
    name = str(demo)
    with av.open(name) as films, av.open(name) as sounds, av.open(str(path), "w") as target:
        video, sound = films.streams.video[0], sounds.streams.audio[0]
        made = target.add_stream("libx265", rate=video.average_rate)
        made.width, made.height, made.pix_fmt = video.width, video.height, TEN_BIT_FORMAT
        made.options = {"crf": "14", "preset": "fast", "x265-params": "log-level=none"}
        context = made.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        copy = target.add_stream_from_template(sound)
        for frame in films.decode(video):
            target.mux(made.encode(_deeper(frame)))
        target.mux(made.encode(None))
        _copy(sounds, sound, target, copy)


def _copy(source: InputContainer, stream: Any, target: OutputContainer, copy: Any) -> None:
    for packet in source.demux(stream):
        if packet.dts is not None:
            packet.stream = copy
            target.mux(packet)


def _deeper(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame's code values times four: the same picture in 10 bits."""
    y, u, v = ((plane * np.uint16(4)).astype(np.uint16) for plane in take_planes(frame))
    deep = build_frame((y, u, v), TEN_BIT_FORMAT)
    deep.pts, deep.time_base = frame.pts, frame.time_base
    deep.colorspace, deep.color_range = frame.colorspace, frame.color_range
    return deep
