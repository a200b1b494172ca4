"""Decoding past damage: packet by packet; broken ones are skipped and counted."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vr_trt.errors import DamagedInputError
from vr_trt.runtime.splices import Splices

# Broken packets in a row after which the rest is given up: more than the longest usual distance
# between key frames, because one lost key frame can cost all packets up to the next.
PACKETS_IN_A_ROW = 300
READS_IN_A_ROW = 20  # failed reads after which a file is taken for ended


class Packets(Protocol):
    """A container, or a stand-in for one."""

    def demux(self, video: VideoStream, /) -> "Iterable[Packet[VideoStream]]":
        """Packets of a stream."""


class Decoder:
    """Iterates over the decodable frames of one stream, in the order in which they are shown.

    `skipped` counts broken packets, `warnings` says what went wrong. Raises DamagedInputError
    where `PACKETS_IN_A_ROW` packets in a row cannot be decoded.
    """

    def __init__(
        self,
        container: Packets,
        stream: VideoStream,
        path: Path,
        context: VideoCodecContext | None = None,
    ) -> None:
        """`context`: a decoder in place of the stream's own."""
        self.skipped = 0
        self.warnings: list[str] = []
        self.first_dts: int | None = None  # of the first packet
        self._container = container
        self._stream = stream
        self._path = path
        self._context = context
        self._splices = Splices.of(stream)
        self._aspects: dict[Fraction | None, None] = {}  # of pixels, in the order they came
        if context is None:
            stream.thread_type = "AUTO"

    def __iter__(self) -> Iterator[av.VideoFrame]:
        in_a_row = 0
        for packet in self._packets():
            try:
                frames = (self._context or self._stream.codec_context).decode(packet)
            except av.FFmpegError as error:
                self.skipped += 1
                in_a_row += 1
                if in_a_row >= PACKETS_IN_A_ROW:
                    raise DamagedInputError(
                        f"{self._path}: {in_a_row} packets in a row cannot be decoded "
                        f"({error.strerror}); repair the file or cut out the damage"
                    ) from error
                continue
            in_a_row = 0
            self._aspects |= {
                (self._context or self._stream.codec_context).sample_aspect_ratio: None
            }
            yield from frames
        shapes = [f"{a.numerator}:{a.denominator}" for a in self._aspects if a]
        if len(shapes) > 1:
            self.warnings.append(
                f"the shape of pixels changes ({', '.join(shapes)}): the first is kept"
            )

    def _packets(self) -> "Iterator[Packet[VideoStream] | None]":
        """Packets with data, then None to drain the decoder."""
        failed = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:  # an empty one would end decoding: PyAV's flush, AVI's repeats
                        failed = 0
                        if self.first_dts is None:
                            self.first_dts = packet.dts
                        yield self._on_one_clock(packet)
                break
            except IndexError:
                break  # PyAV at the end of a file in which another stream turned up on the way
            except av.FFmpegError as error:
                failed += 1
                if failed >= READS_IN_A_ROW:
                    self.warnings.append(f"reading stopped before the end: {error.strerror}")
                    break
        if self._splices and self._splices.count:
            times = "once" if self._splices.count == 1 else f"{self._splices.count} times"
            self.warnings.append(
                f"the file's clock starts anew {times}: its parts follow each other"
            )
        yield None

    def _on_one_clock(self, packet: "Packet[VideoStream]") -> "Packet[VideoStream]":
        if self._splices and (shift := self._splices.place(packet.dts, packet.duration)):
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        return packet
