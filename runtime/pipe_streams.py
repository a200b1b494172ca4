"""The other streams of a film that comes through a pipe: they cannot be read again.

For a file they are put aside until it is joined, in a temporary Matroska file, from which they are
copied as from any input; its video stream is empty. To standard output they are handed on at once.
"""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vr_trt.errors import UsageError
from vr_trt.runtime.media import url_of

FORMAT = "matroska,webm"  # the one whose streams fit into the file whatever they are
LIVE_FORMATS = (FORMAT, "mov,mp4,m4a,3gp,3g2,mj2")  # their headers say all about their streams


class PutAside:
    """A file of the streams that are not restored; it goes when this object does."""

    def __init__(self, source: InputContainer) -> None:
        """Tags, chapters and streams of `source`, without packets. UsageError if that fails."""
        # Not in a block: it lives as long as this object.
        self._file = NamedTemporaryFile(prefix="vr-trt-", suffix=".mkv")  # noqa: SIM115
        self.path = Path(self._file.name)
        self._copies: dict[int, Stream] = {}
        self._open = True
        try:
            self._output = av.open(
                url_of(self.path), "w", format="matroska", metadata_errors="surrogateescape"
            )
            self._output.metadata.update(source.metadata)
            if chapters := source.chapters():
                self._output.set_chapters(chapters)
            for stream in source.streams:
                copy = self._output.add_stream_from_template(stream)
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
                self._copies[stream.index] = copy
            self._output.start_encoding()
        except (OSError, ValueError, av.FFmpegError) as error:
            raise _refused(error) from error

    def add(self, packet: "Packet[Any]") -> None:
        """Keep a packet of the input. UsageError where there is no room."""
        packet.stream = self._copies[packet.stream_index]
        try:
            self._output.mux(packet)
        except av.error.InvalidDataError:
            return  # damaged: as it would be left out of any copy
        except (OSError, av.FFmpegError) as error:
            raise _refused(error) from error

    def end(self) -> None:
        """No more packets come: the file can be read to its end."""
        if self._open:
            self._open = False
            self._output.close()


class Tee:
    """An input whose video is read, while everything else goes where `give_to` says."""

    def __init__(self, source: InputContainer) -> None:
        self._source = source
        self._early: list[Packet[Any]] = []  # read before that was said
        self._take: Callable[[Packet[Any]], None] = self._early.append

    def give_to(self, take: "Callable[[Packet[Any]], None] | None") -> None:
        """Give every packet, those read before as well, to `take`; None drops them."""
        early, self._early = self._early, []
        self._take = take or (lambda packet: None)
        for packet in early:
            self._take(packet)

    def demux(self, video: VideoStream) -> "Iterator[Packet[Any]]":
        """Packets of the video."""
        for packet in self._source.demux():
            if packet.stream_index == video.index:
                yield packet
            elif packet.size:
                self._take(packet)


class Handed:
    """Packets on their way from the thread that reads to the one that writes; a source of copies."""

    def __init__(self, container: InputContainer) -> None:
        self.container = container
        self._packets: deque[Packet[Any]] = deque()
        self._ended = False

    def add(self, packet: "Packet[Any]") -> None:
        """One more packet has been read."""
        self._packets.append(packet)

    def end(self) -> None:
        """No more packets come."""
        self._ended = True

    def demux(self, wanted: list[Stream]) -> "Iterator[Packet[Any] | None]":
        """Packets of those streams; None where the next one has not been read yet."""
        indices = {stream.index for stream in wanted}
        while self._packets or not self._ended:
            packet = self._packets.popleft() if self._packets else None
            if packet is None or packet.stream_index in indices:
                yield packet

    def pictures(self, indices: tuple[int, ...]) -> "dict[int, Packet[Any]]":
        """Cover art, by its stream: it comes before everything else."""
        return {p.stream_index: p for p in self._packets if p.stream_index in indices}

    def close(self) -> None:
        """The reader closes the container."""


def _refused(error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or error
    return UsageError(
        f"the sound of standard input cannot be put aside in {gettempdir()}: {reason}; make room, or "
        "name another folder in TMPDIR"
    )
