"""A growing video file: encoded frames, and the copied streams in step with them."""

from contextlib import suppress

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vr_trt.runtime.copy_plan import CopyPlan
from vr_trt.runtime.copy_streams import StreamCopier
from vr_trt.runtime.encode import OutputSpec, VideoEncoder
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.media import url_of
from vr_trt.runtime.publish import VIDEO_MUXERS, partial_path

# Tags for which MP4 and QuickTime have a place that every player reads. The muxer drops others
# unless it is told to write all of them in a newer way that fewer players read.
_QUICKTIME_TAGS = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"}
    | {"copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"}
    | {"network", "keywords", "creation_time"}
)


class VideoSink:
    """The partial file of a video output. Methods raise OSError or av.FFmpegError."""

    def __init__(self, target: OutputSpec, source: VideoInfo, plan: CopyPlan) -> None:
        muxer = VIDEO_MUXERS[target.path.suffix.lower()]
        self._output = av.open(
            url_of(partial_path(target.path)),
            "w",
            format=muxer,
            metadata_errors="surrogateescape",
        )
        self._encoder = VideoEncoder(self._output, target, source)
        self._copier = StreamCopier(source.path, self._output, plan)
        self._copier.describe(self._encoder.stream)
        if muxer != "matroska":
            own = set(self._output.metadata) <= _QUICKTIME_TAGS
            flags = "+faststart" if own else "+faststart+use_metadata_tags"
            self._output.container_options["movflags"] = flags
        self._shift: int | None = None
        self._output.start_encoding()

    @property
    def broken(self) -> int:
        """Packets of copied streams that were lost."""
        return self._copier.broken

    def write(self, frame: Frame) -> None:
        """Encode the frame and write what is ready."""
        if self._shift is None:
            start = self._copier.start(frame.pts * self._encoder.time_base)
            self._shift = round(start / self._encoder.time_base)
        for packet in self._encoder.encode(frame, self._shift):
            self._mux(packet)

    def finish(self) -> None:
        """Write what is held back, the rest of the copied streams, and the file's index."""
        for packet in self._encoder.drain():
            self._mux(packet)
        self._copier.copy_until(None)
        self._copier.close()
        self._output.close()

    def discard(self) -> None:
        """Close all; what the file lacks does not matter any more."""
        self._copier.close()
        with suppress(av.FFmpegError, OSError):
            self._output.close()

    def _mux(self, packet: "Packet[VideoStream]") -> None:
        assert packet.dts is not None, "an encoder sets the decoding time"
        self._copier.copy_until(packet.dts * packet.time_base)
        self._output.mux_one(packet)
