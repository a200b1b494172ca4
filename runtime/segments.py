"""Frames encoded into segments on disk, each by its own encoder and noted when complete."""

from collections import deque
from pathlib import Path
from typing import Protocol

from vr_trt.errors import VrTrtError
from vr_trt.runtime.encode import OutputSpec, SegmentEncoder, check_format
from vr_trt.runtime.entry import CHECKED_FRAMES
from vr_trt.runtime.frame_digest import frame_digest
from vr_trt.runtime.frames import Frame, Join, VideoInfo
from vr_trt.runtime.journal import Segment
from vr_trt.runtime.packet_file import PacketWriter, StoredPacket


class SegmentLog(Protocol):
    """Where segments go: see vr_trt.runtime.journal."""

    @property
    def frames(self) -> int:
        """Frames that are done."""

    def segment_path(self, first: int) -> Path:
        """Where the segment that begins with frame `first` lies."""

    def add(self, segment: Segment) -> None:
        """Note that a segment is complete."""


class _OpenSegment:
    """The segment that is being written."""

    def __init__(self, file: PacketWriter, encoder: SegmentEncoder, join: Join) -> None:
        self.join = join
        self.file = file
        self.encoder = encoder
        self.durations: dict[int, int] = {}  # by pts, in the order in which they are shown
        self.written: list[int] = []  # pts of packets, in decoding order
        self.tail: deque[str] = deque(maxlen=CHECKED_FRAMES)

    def write(self, frame: Frame) -> None:
        self.durations[frame.pts] = frame.duration
        self.tail.append(frame_digest(frame))
        self._store(frame)

    def _store(self, frame: Frame | None) -> None:
        packets = self.encoder.drain() if frame is None else self.encoder.encode(frame)
        for packet in packets:
            assert packet.pts is not None, "an encoder sets the time"
            duration = self.durations[packet.pts]
            self.file.write(StoredPacket(packet.pts, duration, packet.is_keyframe, bytes(packet)))
            self.written.append(packet.pts)

    def close(self, following: Join | None) -> Segment:
        """Drain the encoder, publish the file, and return what is in it."""
        self._store(None)
        if sorted(self.written) != list(self.durations):
            raise VrTrtError(
                f"the encoder made {len(self.written)} pictures of {len(self.durations)} frames: "
                "try another codec, and report this"
            )
        rank = {pts: number for number, pts in enumerate(self.durations)}
        last = max(self.written)
        return Segment(
            first=self.join.frame,
            frames=len(self.written),
            start_pts=min(self.written),
            end_pts=last + self.durations[last],
            depth=max(number - rank[pts] for number, pts in enumerate(self.written)),
            tail=tuple(self.tail),
            bytes=self.file.publish(),
            following=following,
        )


class SegmentSink:
    """Segments of a video output. Methods raise OSError or av.FFmpegError."""

    def __init__(self, target: OutputSpec, source: VideoInfo, journal: SegmentLog) -> None:
        check_format(target)
        self._target = target
        self._source = source
        self._journal = journal
        self._segment: _OpenSegment | None = None

    def write(self, frame: Frame) -> None:
        """Encode the frame; a join ends the segment before it."""
        if frame.join is not None and self._segment is not None:
            self._close(frame.join)
        if self._segment is None:
            join = frame.join or Join(self._journal.frames, 0)
            file = PacketWriter(self._journal.segment_path(join.frame))
            encoder = SegmentEncoder(self._target, self._source)
            self._segment = _OpenSegment(file, encoder, join)
        self._segment.write(frame)

    def finish(self) -> None:
        """End the last segment."""
        if self._segment is not None:
            self._close(None)

    def discard(self) -> None:
        """Drop the segment that is not complete."""
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.encoder.close()
            segment.file.discard()

    def _close(self, following: Join | None) -> None:
        assert self._segment is not None
        self._journal.add(self._segment.close(following))
        self._segment = None
