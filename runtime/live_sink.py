"""Video written to standard output as it is made: as mkv, or the picture alone as y4m."""

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vr_trt.runtime.copy_plan import CopyPlan
from vr_trt.runtime.copy_streams import FileSource, Source, StreamCopier
from vr_trt.runtime.encode import OutputSpec, av_frame, check_format
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.mux import add_video
from vr_trt.runtime.publish import muxer_of

_STDOUT = "pipe:1"
_FAR = Fraction(10**9)  # seconds: where a range ends that is not known yet


class LiveSink:
    """Writes a stream that cannot be resumed: no segments, no journal. Raises av.FFmpegError."""

    def __init__(self, target: OutputSpec, source: VideoInfo, plan: CopyPlan) -> None:
        check_format(target)
        muxer = muxer_of(target.path, target.codec)
        self._target = target
        self._counted = muxer == "yuv4mpegpipe"  # it knows a rate and no times
        if self._counted:
            source = replace(source, time_base=1 / source.frame_rate)
        self._time_base = source.time_base
        self._frames = 0
        options = {"strict": "unofficial"} if self._counted else {}  # y4m of more than 8 bits
        self._output = av.open(
            _STDOUT, "w", format=muxer, options=options, metadata_errors="surrogateescape"
        )
        self._stream = add_video(self._output, target, source)
        self._copier: StreamCopier | None = None
        self._pipe = source.pipe
        if (others := self._others(source)) is not None:
            self._copier = StreamCopier(others, self._output, plan)
            self._copier.describe(self._stream)
        self._shift: int | None = None
        self._end = Fraction(0)  # of what is written, seconds of the output

    @property
    def broken(self) -> int:
        """Packets of copied streams that were lost."""
        return self._copier.broken if self._copier else 0

    def write(self, frame: Frame) -> None:
        """Encode the frame and write what is ready."""
        if self._shift is None:
            self._begin(frame.pts)
        picture = av_frame(frame, self._target, self._time_base)
        self._end = (frame.pts + max(1, frame.duration) - (self._shift or 0)) * self._time_base
        picture.pts = self._frames if self._counted else frame.pts - (self._shift or 0)
        self._frames += 1
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what is held back, and the rest of the copied streams."""
        self._mux(self._stream.encode(None))
        if self._pipe is not None:
            self._pipe.end()
        if self._copier:
            self._copier.copy_until(self._end if self._target.clipped else None)
            self._copier.close()
        self._output.close()

    def discard(self) -> None:
        """Close all."""
        if self._copier:
            self._copier.close()
        with suppress(av.FFmpegError, OSError):
            self._output.close()

    def _others(self, source: VideoInfo) -> Source | None:
        """Where all other streams come from; None where none go on."""
        if self._counted:
            return None
        if source.pipe is not None:
            handed: Source | None = (
                source.pipe.hand_on() if source.pipe.carries(live=True) else None
            )
            return handed
        return None if source.others is None else FileSource(source.others)

    def _begin(self, pts: int) -> None:
        start = pts * self._time_base
        if self._copier:
            if self._target.clipped:
                self._copier.clip(start, _FAR)
            start = self._copier.start(start)
        self._shift = round(start / self._time_base)
        self._output.start_encoding()

    def _mux(self, packets: "list[Packet[VideoStream]]") -> None:
        for packet in packets:
            if self._copier and packet.dts is not None:
                self._copier.copy_until(packet.dts * packet.time_base)
                self._copier.mux(packet)
            else:
                self._output.mux_one(packet)
