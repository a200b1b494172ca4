"""The finished file, put together from segments and copied streams; nothing is encoded again."""

import io
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vr_trt.errors import UsageError
from vr_trt.runtime.copy_plan import CopyPlan
from vr_trt.runtime.copy_streams import FileSource, StreamCopier
from vr_trt.runtime.encode import OutputSpec, configure
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.journal import Journal
from vr_trt.runtime.media import url_of
from vr_trt.runtime.packet_file import StoredPacket, read_packets, read_times
from vr_trt.runtime.publish import muxer_of, partial_path

# Tags for which MP4 and QuickTime have a place that every player reads. The muxer drops others
# unless it is told to write all of them in a newer way that fewer players read.
_QUICKTIME_TAGS = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"}
    | {"copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"}
    | {"network", "keywords", "creation_time"}
)
_QUICKTIME = ("mp4", "mov")


def check_muxer(target: OutputSpec, source: VideoInfo) -> None:
    """Try the video's header in the container, in memory. UsageError where it does not go."""
    muxer = muxer_of(target.path, target.codec)
    try:
        options = {"strict": "unofficial"} if muxer == "yuv4mpegpipe" else {}
        with av.open(io.BytesIO(), "w", format=muxer, options=options) as trial:
            add_video(trial, target, source)
            trial.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{target.path}: {target.codec} at {target.width}x{target.height} in "
            f"{target.pixel.bits} bits cannot be written ({reason}); choose another codec"
        ) from error


def add_video(output: OutputContainer, target: OutputSpec, source: VideoInfo) -> VideoStream:
    """The video stream, its encoder set as that of every segment."""
    rate = source.frame_rate.limit_denominator(100_000)
    stream = output.add_stream(target.coder.encoder, rate=rate)
    assert isinstance(stream, VideoStream)
    configure(stream.codec_context, target, source)
    stream.time_base = source.time_base
    if target.codec == "hevc" and output.format.name in _QUICKTIME:
        stream.codec_context.codec_tag = "hvc1"  # the one that Apple's players take
    return stream


class FilmFile:
    """The partial file of a video output. Methods raise OSError or av.FFmpegError."""

    def __init__(self, target: OutputSpec, source: VideoInfo, plan: CopyPlan) -> None:
        muxer = muxer_of(target.path, target.codec)
        self._target = target
        self._time_base = source.time_base
        self._output = av.open(
            url_of(partial_path(target.path)),
            "w",
            format=muxer,
            metadata_errors="surrogateescape",
        )
        self._stream = add_video(self._output, target, source)
        self._copier: StreamCopier | None = None
        if source.pipe is not None:
            source.pipe.end()
        if (others := source.others) is not None:
            self._copier = StreamCopier(FileSource(others), self._output, plan)
            self._copier.describe(self._stream)
        self._muxer = muxer

    @property
    def broken(self) -> int:
        """Packets of copied streams that were lost."""
        return self._copier.broken if self._copier else 0

    def join(self, journal: Journal) -> None:
        """Write the segments and, in step with them, the copied streams; then the file's index."""
        first, last = journal.segments[0], journal.segments[-1]
        start = first.start_pts * self._time_base
        if self._copier:
            if self._target.clipped:
                self._copier.clip(start, last.end_pts * self._time_base)
            start = self._copier.start(start)
        shift = round(start / self._time_base)
        self._start()
        frames = 0
        for packet in self._timed(journal):
            assert packet.pts is not None and packet.dts is not None
            packet.pts -= shift
            packet.dts -= shift
            if self._copier:
                self._copier.copy_until(packet.dts * self._time_base)
                self._copier.mux(packet)
            else:
                self._output.mux_one(packet)
            frames += 1
        assert frames == journal.frames, f"{frames} pictures of {journal.frames} frames"
        if self._copier:
            self._copier.copy_until(None)
            self._copier.close()
        self._output.close()

    def discard(self) -> None:
        """Close everything; it no longer matters what the file lacks."""
        if self._copier:
            self._copier.close()
        with suppress(av.FFmpegError, OSError):
            self._output.close()

    def _start(self) -> None:
        if self._muxer in _QUICKTIME:
            own = set(self._output.metadata) <= _QUICKTIME_TAGS
            flags = "+faststart" if own else "+faststart+use_metadata_tags"
            self._output.container_options["movflags"] = flags
        self._output.start_encoding()

    def _timed(self, journal: Journal) -> "Iterator[Packet[Any]]":
        """Packets with decoding times that increase over the whole film.

        The picture decoded as number n gets the time at which number n - depth is shown: never
        later than its own, since none is decoded more than `depth` before its turn.
        """
        depth = max(segment.depth for segment in journal.segments)
        shown: deque[int] = deque()  # times of pictures, `depth` of them before the current one
        for segment in journal.segments:
            path = journal.segment_path(segment.first)
            times = read_times(path)
            if segment is journal.segments[0]:
                start, step = times[0]
                shown.extend(start - (depth - i) * max(1, step) for i in range(depth))
            shown.extend(pts for pts, _ in times)
            for packet in read_packets(path):
                yield self._packet(packet, shown.popleft())

    def _packet(self, stored: StoredPacket, dts: int) -> "Packet[Any]":
        packet = Packet(stored.data)
        packet.stream = self._stream
        packet.time_base = Fraction(self._time_base)
        packet.pts, packet.dts = stored.pts, dts
        packet.duration = stored.duration
        packet.is_keyframe = stored.keyframe
        return packet
