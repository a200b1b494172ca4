"""The other streams of a film that comes through a pipe, put aside until its output is joined.

They come between the pictures and cannot be read again, so they go into a temporary Matroska file,
from which they are copied as from any input. Its video stream is empty: the pictures go their way.
"""

from collections.abc import Iterator
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
    """An input whose video is read, while everything else is put aside."""

    def __init__(self, source: InputContainer, aside: PutAside) -> None:
        self._source = source
        self._aside = aside

    def demux(self, video: VideoStream) -> "Iterator[Packet[Any]]":
        """Packets of the video."""
        for packet in self._source.demux():
            if packet.stream_index == video.index:
                yield packet
            elif packet.size:
                self._aside.add(packet)


def _refused(error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or error
    return UsageError(
        f"the sound of standard input cannot be put aside in {gettempdir()}: {reason}; make room, or "
        "name another folder in TMPDIR"
    )
