"""Interlaced video into whole frames, by FFmpeg's bwdif, before anything else looks at it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, get_args

import av
from av.filter import Graph

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import VideoInfo

# frame: as many frames as before; field: twice as many, each moment of its own; off: as it is
Deinterlace = Literal["frame", "field", "off"]


def deinterlaced(info: VideoInfo, mode: str | None) -> VideoInfo:
    """The facts about a video once it is deinterlaced.

    UsageError for interlaced video about which nothing was said, and for an unknown mode.
    """
    if mode is not None and mode not in get_args(Deinterlace):
        raise UsageError(f"unknown way to deinterlace {mode!r}: frame, field or off")
    if not info.interlaced or mode == "off":
        return info
    if mode is None:
        raise UsageError(
            f"{info.path} is interlaced: --deinterlace field makes a frame of each field, "
            "--deinterlace frame keeps the number of frames, --deinterlace off restores it as it is"
        )
    factor = 2 if mode == "field" else 1
    return replace(
        info,
        deinterlace="send_field" if mode == "field" else "send_frame",
        time_base=info.time_base / 2,  # so that the second field's time is exact
        frame_rate=info.frame_rate * factor,
        frames=info.frames and info.frames * factor,
    )


def deinterlace(frames: Iterable[av.VideoFrame], info: VideoInfo) -> Iterator[av.VideoFrame]:
    """`frames` with their fields taken apart, times in `info.time_base`."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            graph = _graph(frame, info)
        graph.push(frame)
        yield from _ready(graph, info)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph, info)


def _graph(frame: av.VideoFrame, info: VideoInfo) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=2 * info.time_base,
    )
    fields = graph.add("bwdif", f"mode={info.deinterlace}:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(fields)
    fields.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: Graph, info: VideoInfo) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        if frame.pts is not None and frame.time_base:
            frame.pts = round(frame.pts * frame.time_base / info.time_base)
        frame.duration = 0  # until the next frame
        frame.time_base = info.time_base
        yield frame
