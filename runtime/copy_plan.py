"""How each stream beside the video gets into the output, tried before any work starts."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vr_trt.errors import UsageError
from vr_trt.runtime.media import is_cover, main_video, open_input
from vr_trt.runtime.transcode import codec_for

_PACKETS_TO_TRY = 256  # how far to look for a first packet of every stream


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyPlan:
    """Which streams of the input go into the output, and how."""

    streams: tuple[int, ...] = ()  # indices, copied packet by packet
    attachments: tuple[int, ...] = ()  # indices, written into the header
    covers: tuple[int, ...] = ()  # indices of cover art that becomes an attachment
    recoded: tuple[int, ...] = ()  # indices of audio and text that is coded again
    warnings: tuple[str, ...] = ()


def plan_copy(source: Path, muxer: str, audio: bool) -> CopyPlan:
    """The plan of copying from a file: see `plan_streams`."""
    with open_input(source) as container:
        main = main_video(container, source)
        packets = first_packets(container, [s for s in container.streams if s is not main])
        return plan_streams(container, main, packets, muxer, audio)


def plan_streams(
    container: InputContainer,
    main: VideoStream,
    packets: "Mapping[int, Packet[Stream]]",  # one of a stream, as far as they are at hand
    muxer: str,
    audio: bool,
) -> CopyPlan:
    """Try every stream in the output's container, in memory, before any work starts.

    Audio and text that do not fit are coded again, with a warning; UsageError for audio that cannot
    be. Other streams that do not fit are left out, with a warning. `audio` False leaves audio out.
    """
    streams: list[int] = []
    attachments: list[int] = []
    covers: list[int] = []
    recoded: list[int] = []
    warnings: list[str] = []
    chapters = bool(container.chapters())
    for stream in container.streams:
        if stream.index == main.index:
            continue
        if stream.type == "audio" and not audio or _is_remade(stream, chapters):
            continue
        what = f"{stream.type} stream {stream.index} ({codec_name(stream)})"
        if stream.type == "video" and not is_cover(stream):
            warnings.append(f"{what} is left out: only the first video is restored")
        elif is_cover(stream) and muxer == "matroska":
            covers.append(stream.index)
        elif _fits(stream, packets.get(stream.index), muxer):
            chosen = attachments if stream.type == "attachment" else streams
            chosen.append(stream.index)
        else:
            codec = codec_for(stream, muxer)
            other = _other_container(stream, packets.get(stream.index))
            if codec is not None:
                recoded.append(stream.index)
            elif stream.type == "audio":
                remedy = f"write {other}" if other else "convert it or leave the audio out"
                name = container.name.removeprefix("file:")
                raise UsageError(f"{name}: {what} does not fit into the output; {remedy}")
            fate = f": it becomes {codec}" if codec else " and is left out"
            keep = f"; {other} would keep it{' as it is' if codec else ''}" if other else ""
            warnings.append(f"{what} does not fit into the output{fate}{keep}")
    return CopyPlan(
        streams=tuple(streams),
        attachments=tuple(attachments),
        covers=tuple(covers),
        recoded=tuple(recoded),
        warnings=tuple(warnings),
    )


def _is_remade(stream: Stream, chapters: bool) -> bool:
    """True for QuickTime's helper tracks, which the muxer writes anew: time code, chapter text."""
    return stream.type == "data" and (chapters or "timecode" in stream.metadata)


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of the codec."""
    context = getattr(stream, "codec_context", None)
    return context.name if context is not None else "unknown codec"


def first_packets(container: InputContainer, streams: list[Stream]) -> "dict[int, Packet[Stream]]":
    """The first packet of each stream, as far as one is found near the start."""
    found: dict[int, Packet[Stream]] = {}
    wanted = [stream for stream in streams if stream.type != "attachment"]
    if not wanted:
        return found
    try:
        for number, packet in enumerate(container.demux(wanted)):
            if packet.size:
                found.setdefault(packet.stream_index, packet)
            if len(found) == len(wanted) or number >= _PACKETS_TO_TRY:
                break
    except (av.FFmpegError, IndexError):  # IndexError: PyAV, where another stream turns up
        return found  # a damaged start; the headers alone decide then
    return found


def _other_container(stream: Stream, packet: "Packet[Stream] | None") -> str | None:
    """A container that takes the stream, in words."""
    names = {"matroska": "an .mkv", "mov": "a .mov", "mp4": "an .mp4"}
    return next((name for muxer, name in names.items() if _fits(stream, packet, muxer)), None)


def _fits(stream: Stream, packet: "Packet[Stream] | None", muxer: str) -> bool:
    """Whether the container takes the stream's header and its first packet."""
    if is_cover(stream) and muxer == "mov":
        return False  # FFmpeg's takes it, and writes it nowhere
    trial = av.open(io.BytesIO(), "w", format=muxer)
    try:
        copy = trial.add_stream_from_template(stream)
        trial.start_encoding()
        if packet is not None:
            packet.stream = copy
            packet.dts = packet.pts if packet.dts is None else packet.dts
            trial.mux_one(packet)
        trial.close()
    except (av.FFmpegError, ValueError):
        return False
    return True
