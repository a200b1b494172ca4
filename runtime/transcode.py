"""Audio that an output's container does not take, coded again in a codec that it does."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

# For each container: the encoder, and bits a second for each channel (None: lossless).
_CODECS: dict[str, tuple[str, int | None]] = {
    "mp4": ("aac", 96_000),
    "mov": ("aac", 96_000),
    "matroska": ("flac", None),
    "webm": ("libopus", 64_000),
}
_LAYOUTS = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}
_RATES = {"libopus": (48_000, 24_000, 16_000, 12_000, 8_000)}


def audio_codec_for(
    stream: AudioStream,
    muxer: str,  # of the output
) -> str | None:
    """The encoder that takes the stream's place; None where it cannot be decoded or coded."""
    codec = _CODECS.get(muxer)
    context = getattr(stream, "codec_context", None)
    if codec is None or context is None or codec[0] not in av.codecs_available:
        return None
    return codec[0] if stream.rate and _layout_of(stream) else None


def _layout_of(stream: AudioStream) -> str | None:
    """FFmpeg's name of the stream's channels; some files tell their number only."""
    name = stream.layout.name
    return name if " channels" not in name else _LAYOUTS.get(stream.channels)


class AudioTranscoder:
    """One stream of an input into one of an output. Broken packets are counted and left out."""

    def __init__(self, source: AudioStream, output: OutputContainer, muxer: str) -> None:
        """Adds the stream to the output; before its header is written."""
        self.broken = 0
        name, bitrate = _CODECS[muxer]
        rates = _RATES.get(name, (source.rate,))
        rate = source.rate if source.rate in rates else rates[0]
        layout = _layout_of(source)
        assert layout is not None, "asked for by audio_codec_for"
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
