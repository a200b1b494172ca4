"""Sound and subtitles that an output's container does not take, coded again in what it takes."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

# For each container: the audio encoder, and bits a second for each channel (None: lossless).
_SOUND: dict[str, tuple[str, int | None]] = {
    "mp4": ("aac", 96_000),
    "mov": ("aac", 96_000),
    "matroska": ("flac", None),
    "webm": ("libopus", 64_000),
}
_LAYOUTS = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}
_RATES = {"libopus": (48_000, 24_000, 16_000, 12_000, 8_000)}
# FFmpeg decodes each of these to text with styles, and encodes each from that.
_TEXT_READ = ("ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt")
_TEXT = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}


def codec_for(
    stream: Stream,
    muxer: str,  # of the output
) -> str | None:
    """The encoder that takes a stream's place; None where it cannot be decoded or encoded.

    Subtitles that are pictures, and other data, have none.
    """
    context = getattr(stream, "codec_context", None)
    if context is None:
        return None
    if isinstance(stream, SubtitleStream):
        return _TEXT.get(muxer) if context.name in _TEXT_READ else None
    if not isinstance(stream, AudioStream) or muxer not in _SOUND:
        return None
    codec, _ = _SOUND[muxer]
    known = codec in av.codecs_available and stream.rate and _layout_of(stream)
    return codec if known else None


def make_transcoder(
    stream: Stream,  # of an input; `codec_for` gave a codec
    output: OutputContainer,  # its header is not written yet
) -> "AudioTranscoder | SubtitleTranscoder":
    """What codes one stream again, into a new stream of the output."""
    if isinstance(stream, SubtitleStream):
        return SubtitleTranscoder(stream, output)
    assert isinstance(stream, AudioStream), "nothing else is coded again"
    return AudioTranscoder(stream, output)


class AudioTranscoder:
    """Sound of an input into sound of an output. Broken packets are counted and left out."""

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self.broken = 0
        name, bitrate = _SOUND[output.format.name]
        rates = _RATES.get(name, (source.rate,))
        rate = source.rate if source.rate in rates else rates[0]
        layout = _layout_of(source)
        assert layout is not None, "codec_for asked for it"
        stream = output.add_stream(name, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        if bitrate is not None:
            stream.bit_rate = bitrate * source.channels
        self.stream = stream
        self._source = source
        self._next = 0  # where a frame without a time goes

    def push(self, packet: "Packet[Any] | None", shift: Fraction) -> "Iterator[Packet[Any]]":
        """Packets that are ready after one more of the input, or after the last (None).

        `shift`: seconds taken off every time.
        """
        try:
            frames = self._source.codec_context.decode(packet)
        except av.FFmpegError:
            self.broken += 1
            return
        for frame in frames:
            self._set_time(frame)
            yield from self._timed(self.stream.encode(frame), shift)
        if packet is None:
            yield from self._timed(self.stream.encode(None), shift)

    def _set_time(self, frame: av.AudioFrame) -> None:
        """A frame without a time, as decoders give at the end, follows the one before."""
        base = frame.time_base or self._source.time_base or Fraction(1, frame.sample_rate)
        if frame.pts is None:
            frame.pts = self._next
        self._next = frame.pts + round(Fraction(frame.samples, frame.sample_rate) / base)

    def _timed(self, packets: "list[Packet[Any]]", shift: Fraction) -> "Iterator[Packet[Any]]":
        for packet in packets:
            if packet.pts is None:
                self.broken += 1
                continue
            packet.pts -= round(shift / packet.time_base)
            packet.dts = packet.pts
            yield packet


class SubtitleTranscoder:
    """Text of an input into text of an output. Broken packets are counted and left out."""

    def __init__(self, source: SubtitleStream, output: OutputContainer) -> None:
        self.broken = 0
        source.codec_context.open(strict=False)
        stream = output.add_stream(_TEXT[output.format.name])
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


def _layout_of(stream: AudioStream) -> str | None:
    """FFmpeg's name of the stream's channels; some files tell their number only."""
    name = stream.layout.name
    return name if " channels" not in name else _LAYOUTS.get(stream.channels)
