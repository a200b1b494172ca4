"""Interlaced video into whole frames, by FFmpeg's filters, before anything else looks at it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import av
from av.filter import Graph

from vr_trt.errors import UsageError
from vr_trt.runtime.frames import VideoInfo

_WHOLE = "bwdif=mode=send_frame:deint"
_TWICE = "bwdif=mode=send_field:deint"
# For each choice: the filters, and how many frames come of one.
_FILTERS: dict[str, tuple[str, Fraction]] = {
    "frame": (f"{_WHOLE}=interlaced", Fraction(1)),  # of frames that are marked
    "field": (f"{_TWICE}=interlaced", Fraction(2)),  # each moment of its own
    "all-frames": (f"{_WHOLE}=all", Fraction(1)),  # of every frame, marked or not
    "all-fields": (f"{_TWICE}=all", Fraction(2)),
    # Film at 24 frames a second in fields at 60: the fields of one picture are put together again.
    "telecine": (f"fieldmatch=combmatch=full,{_WHOLE}=interlaced,decimate", Fraction(4, 5)),
    "off": ("", Fraction(1)),
}


def deinterlaced(info: VideoInfo, mode: str | None) -> VideoInfo:
    """The facts about a video once it is deinterlaced.

    UsageError for interlaced video about which nothing was said, and for an unknown mode.
    """
    if mode is not None and mode not in _FILTERS:
        raise UsageError(
            f"unknown way to deinterlace {mode!r}: choose one of {', '.join(_FILTERS)}"
        )
    if mode is None and info.interlaced:
        raise UsageError(
            f"{info.path} is interlaced: --deinterlace field makes a frame of each field, frame keeps "
            "the number of frames, telecine brings back 24 film frames of 30, off restores it as it is"
        )
    filters, factor = _FILTERS[mode or "off"]
    if not filters or info.is_image or info.images:
        return info
    if mode in ("frame", "field") and not info.interlaced:
        factor = Fraction(1)  # it may have fields later on; how many is not known
    return replace(
        info,
        deinterlace=mode or "",
        time_base=info.time_base / 2,  # so that the second field's time is exact
        frame_rate=info.frame_rate * factor,
        frames=info.frames and int(info.frames * factor),
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
    base, rate = 2 * info.time_base, info.frame_rate
    if info.deinterlace == "telecine":
        rate *= Fraction(5, 4)  # what comes in: decimate needs to know
    about = {
        "video_size": f"{frame.width}x{frame.height}",
        "pix_fmt": frame.format.name,
        "time_base": f"{base.numerator}/{base.denominator}",
        "frame_rate": f"{rate.numerator}/{rate.denominator}",
    }
    node = graph.add("buffer", ":".join(f"{name}={value}" for name, value in about.items()))
    for words in _FILTERS[info.deinterlace][0].split(","):
        name, _, choices = words.partition("=")
        following = graph.add(name, choices or None)
        node.link_to(following)
        node = following
    node.link_to(graph.add("buffersink"))
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
