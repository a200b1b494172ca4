"""Everything of the input beside the restored video, copied packet by packet."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard, Stream

from vr_trt.runtime.copy_plan import CopyPlan, codec_name, first_packets
from vr_trt.runtime.decode import READS_IN_A_ROW
from vr_trt.runtime.media import is_cover, main_video, open_input
from vr_trt.runtime.publish import DISK_ERRORS
from vr_trt.runtime.splices import RUNNING_CLOCKS, Follower, Splices
from vr_trt.runtime.transcode import AudioTranscoder, SubtitleTranscoder, make_transcoder

if TYPE_CHECKING:
    from av.container.core import Chapter

# ISO 639's other codes, of those languages that QuickTime has a number for; FFmpeg drops these.
_QUICKTIME_LANGUAGES = {
    "deu": "ger",
    "nld": "dut",
    "ell": "gre",
    "isl": "ice",
    "zho": "chi",
    "sqi": "alb",
    "swe": "sve",
    "mkd": "mac",
}
_KEEPS_EDITS = ("mp4", "mov")  # containers that can say what is not to be shown
_STALE_TAGS = re.compile(
    r"(encoder|duration|rotate|vendor_id|alpha_mode|bps|number_of_(frames|bytes)|_statistics_.*"
    r"|major_brand|minor_version|compatible_brands)(-\w+)?",
    re.IGNORECASE,
)


class Source(Protocol):
    """What streams are copied from."""

    container: InputContainer

    def demux(self, wanted: list[Stream], /) -> "Iterator[Packet[Any] | None]":
        """Packets of those streams; None where the next one is not there yet."""

    def pictures(self, indices: tuple[int, ...], /) -> "dict[int, Packet[Any]]":
        """The cover art of those streams."""

    def close(self) -> None:
        """No more is read."""


class FileSource:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.container = open_input(path)
        self._path = path

    def demux(self, wanted: list[Stream]) -> "Iterator[Packet[Any] | None]":
        """Packets of those streams."""
        for stream in self.container.streams:
            stream.discard = Discard.default if stream in wanted else Discard.all
        yield from self.container.demux(wanted)

    def pictures(self, indices: tuple[int, ...]) -> "dict[int, Packet[Any]]":
        """The cover art of those streams, read apart: this container stays at its start."""
        with open_input(self._path) as container:
            return first_packets(container, [container.streams[index] for index in indices])

    def close(self) -> None:
        """Close it."""
        self.container.close()


class StreamCopier:
    """Copies the planned streams into an open output, in step with the encoded video.

    Construct it after the video stream was added and before the header is written.
    """

    def __init__(self, source: "Source", output: OutputContainer, plan: CopyPlan) -> None:
        self.broken = 0  # packets that could not be read or written
        self._source = source
        self._container = source.container
        self._output = output
        self._copies: dict[int, Stream] = {}
        self._coders: dict[int, AudioTranscoder | SubtitleTranscoder] = {}
        self._last_dts: dict[int, int] = {}
        self._add_header(plan)
        self._packets = self._read()
        self._waiting: Packet[Stream] | None = None
        self._shift = Fraction(0)  # seconds taken off every timestamp
        self._span: tuple[Fraction, Fraction] | None = None  # what is copied; None: all

    def start(self, video: Fraction) -> Fraction:
        """Seconds to take off every timestamp, given the first frame's; call it before copying.

        A clock that runs on is set to zero, and no frame comes before zero, where players cut.
        """
        if self._span is not None:
            self._shift = self._span[0]
            return self._shift
        running = self._container.format.name in RUNNING_CLOCKS
        if running and self._container.start_time is None:
            self._shift = video
        else:
            start = (self._container.start_time or 0) if running else 0
            self._shift = min(Fraction(start, av.time_base), video)
        return self._shift

    def clip(self, start: Fraction, stop: Fraction) -> None:
        """Copy only what begins within these seconds of the input; before the header is written."""
        self._span = start, stop
        chapters = self._container.chapters()
        if chapters:
            self._output.set_chapters([c for c in map(self._clipped, chapters) if c is not None])

    def describe(self, video: Stream) -> None:
        """Give the restored video the tags and the disposition of the input's."""
        original = main_video(self._container, Path(self._container.name))
        video.metadata.update(stream_tags(original, self._output))
        video.disposition = original.disposition

    def copy_until(self, seconds: Fraction | None) -> None:
        """Write what is to be decoded before that time of the output; None writes the rest.

        Of a pipe, only as far as it was read.
        """
        while packet := self._waiting or next(self._packets, None):
            assert packet.dts is not None, "packets without a time are not queued"
            if seconds is not None and packet.dts * packet.time_base > seconds:
                self._waiting = packet
                return
            self._waiting = None
            self._write(packet)

    def mux(self, packet: "Packet[Any]") -> None:
        """Write a packet of the restored video. Raises OSError or av.FFmpegError.

        A copied packet that waited in the muxer is written first; if it is damaged beyond what the
        container takes, it is counted, and the video's waits in its place.
        """
        try:
            self._output.mux_one(packet)
        except av.error.InvalidDataError:
            self.broken += 1

    def close(self) -> None:
        """Close the input."""
        self._source.close()

    def _add_header(self, plan: CopyPlan) -> None:
        source, output = self._container, self._output
        output.metadata.update(kept_tags(source.metadata))
        if chapters := source.chapters():
            output.set_chapters(chapters)
        for index in plan.streams + plan.attachments:
            template = source.streams[index]
            copy = output.add_stream_from_template(template)
            copy.metadata.update(stream_tags(template, output))
            copy.disposition = template.disposition
            if index in plan.streams:
                self._copies[index] = copy
        for index in plan.recoded:
            template = source.streams[index]
            coder = make_transcoder(template, output)
            coder.stream.metadata.update(stream_tags(template, output))
            coder.stream.disposition = template.disposition
            self._coders[index] = coder
        if plan.covers:
            self._attach_covers(plan.covers)

    def _clipped(self, chapter: "Chapter") -> "Chapter | None":
        """The part of a chapter that lies within the span, counted from its start."""
        assert self._span is not None
        base = chapter["time_base"] or Fraction(1, av.time_base)
        first, last = (round(seconds / base) for seconds in self._span)
        start, end = max(chapter["start"], first), min(chapter["end"], last)
        if start >= end:
            return None
        return {**chapter, "start": start - first, "end": end - first, "time_base": base}

    def _attach_covers(self, indices: tuple[int, ...]) -> None:
        for index, packet in self._source.pictures(indices).items():
            stream = self._container.streams[index]
            kind = {"mjpeg": "jpeg"}.get(name := codec_name(stream), name)
            filename = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
            mimetype = stream.metadata.get("mimetype", f"image/{kind}")
            self._output.add_attachment(filename, mimetype, bytes(packet))

    def _read(self) -> "Iterator[Packet[Stream] | None]":
        """Packets for the output with their times made usable, past damage."""
        chosen = {**self._copies, **self._coders}
        if not chosen:
            return
        wanted = [self._container.streams[index] for index in chosen]
        video = main_video(self._container, Path(self._container.name))
        if splices := Splices.of(video):
            wanted.append(video)
        packets = self._demuxed(wanted)
        if splices:
            packets = Follower(video, splices).follow(packets)
        for packet in self._within_edits(packets):
            if packet is None:
                yield None
            elif coder := self._coders.get(packet.stream_index):
                if self._within_span(packet):
                    yield from coder.push(packet, self._shift)
            elif self._set_times(packet):
                packet.stream = self._copies[packet.stream_index]
                yield packet
        for coder in self._coders.values():
            yield from coder.push(None, self._shift)
            self.broken += coder.broken

    def _demuxed(self, wanted: "list[Stream]") -> "Iterator[Packet[Stream] | None]":
        failed = 0
        while failed < READS_IN_A_ROW:
            try:
                for packet in self._source.demux(wanted):
                    if packet is None or packet.size:
                        failed = 0
                        yield packet
                return
            except IndexError:
                return  # PyAV at the end of a file in which another stream turned up on the way
            except av.FFmpegError:
                failed += 1
                self.broken += 1

    def _within_edits(
        self, packets: "Iterator[Packet[Stream] | None]"
    ) -> "Iterator[Packet[Stream] | None]":
        """`packets` without those that an edit list hides, where the output would show them.

        The last one before each that is shown stays: decoders of sound need it to begin with.
        """
        if self._output.format.name in _KEEPS_EDITS:
            yield from packets
            return
        hidden: dict[int, Packet[Stream]] = {}
        for packet in packets:
            if packet is None:
                yield None
                continue
            if packet.is_discard:
                hidden[packet.stream_index] = packet
                continue
            if (before := hidden.pop(packet.stream_index, None)) is not None:
                yield before
            yield packet

    def _within_span(self, packet: "Packet[Stream]") -> bool:
        shown = packet.pts if packet.pts is not None else packet.dts
        if self._span is None or shown is None or is_cover(packet.stream):
            return True
        return self._span[0] <= shown * packet.time_base < self._span[1]

    def _set_times(self, packet: "Packet[Stream]") -> bool:
        """Shift the packet's times and make dts increase; False if it has none."""
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None and is_cover(packet.stream):
            dts = 0
        if dts is None:
            self.broken += 1
            return False
        if not self._within_span(packet):
            return False
        offset = round(self._shift / packet.time_base)
        late = packet.pts - dts if packet.pts is not None else 0
        dts -= offset
        if (last := self._last_dts.get(packet.stream_index)) is not None:
            dts = max(dts, last + 1)
        self._last_dts[packet.stream_index] = dts
        packet.dts, packet.pts = dts, dts + max(0, late)
        return True

    def _write(self, packet: "Packet[Stream]") -> None:
        try:
            self._output.mux_one(packet)
        except av.FFmpegError as error:
            if error.errno in DISK_ERRORS:
                raise
            self.broken += 1  # the packet itself does not go into this container


def kept_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Tags without those that describe the old file rather than its content."""
    return {key: value for key, value in metadata.items() if not _STALE_TAGS.fullmatch(key)}


def stream_tags(stream: Stream, output: OutputContainer) -> dict[str, str]:
    """Tags of a stream; a QuickTime track name becomes the title, which every container has."""
    tags = kept_tags(stream.metadata)
    if "name" in tags and "title" not in tags:
        tags["title"] = tags.pop("name")
    if output.format.name == "mov" and (language := tags.get("language")):
        tags["language"] = _QUICKTIME_LANGUAGES.get(language, language)
    return tags
