"""Text subtitles that an output's container does not take, written in the format that it does."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

# FFmpeg reads each of these as text with styles, and writes each from that.
_READ = ("ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt")
_WRITTEN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}


def subtitle_codec_for(
    stream: SubtitleStream,
    muxer: str,  # of the output
) -> str | None:
    """The format that takes the stream's place; None for pictures of text, and for other data."""
    context = getattr(stream, "codec_context", None)
    return _WRITTEN.get(muxer) if context is not None and context.name in _READ else None


class SubtitleTranscoder:
    """One stream of an input into one of an output. Broken packets are counted and left out."""

    def __init__(self, source: SubtitleStream, output: OutputContainer, muxer: str) -> None:
        """Adds the stream to the output; before its header is written."""
        self.broken = 0
        source.codec_context.open(strict=False)
        stream = output.add_stream(_WRITTEN[muxer])
        assert isinstance(stream, SubtitleStream)
        context = stream.codec_context
        assert isinstance(context, SubtitleCodecContext)
        context.subtitle_header = source.codec_context.subtitle_header
        context.time_base = Fraction(1, 1000)
        self.stream = stream
        self._context = context
        self._source = source

    def push(self, packet: "Packet[Any] | None", shift: Fraction) -> "Iterator[Packet[Any]]":
        """The packet in the other format; nothing for one without text, and at the end (None).

        `shift`: seconds taken off every time.
        """
        if packet is None or packet.pts is None:
            return
        try:
            text = self._source.codec_context.decode2(packet)
            if text is None or not text.rects:
                return  # MP4 fills the gaps between texts
            written = self._context.encode_subtitle(text)
        except av.FFmpegError:
            self.broken += 1
            return
        written.stream = self.stream
        written.time_base = packet.time_base
        written.pts = written.dts = packet.pts - round(shift / packet.time_base)
        written.duration = packet.duration or round(
            text.end_display_time / (1000 * packet.time_base)
        )
        yield written
