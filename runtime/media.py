"""Opening a file for reading: which errors a user sees, which stream is the video."""

import errno
import os
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from vr_trt.errors import DamagedInputError, UsageError

# How media files begin. One that begins so and fails to open is damaged; any other is no video.
_SIGNATURES = (
    (4, (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")),
    (0, (b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"\x00\x00\x01\xba", b"0&\xb2u", b"G@")),
    (0, (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*")),
)
_TEXT_DEMUXERS = {"tty", "bin", "xbin", "adf", "idf"}  # they make a picture of any text
_IMAGE_DEMUXERS = {"image2"}
_ANIMATION_DEMUXERS = {"gif", "apng"}  # an image if they hold one picture


def url_of(path: Path) -> str:
    """The path for FFmpeg, which would take `a:b.mp4` for a protocol and `-` for a pipe."""
    return f"file:{os.path.abspath(path)}"


def open_input(path: Path) -> InputContainer:
    """Open a media file. UsageError if it is not one, DamagedInputError if it is broken."""
    _check_readable(path)
    try:
        # Tags may hold any bytes; they are carried through, not interpreted.
        container = av.open(url_of(path), "r", metadata_errors="surrogateescape")
    except av.FFmpegError as error:
        raise _unopenable(path, error) from error
    if container.format.name in _TEXT_DEMUXERS:
        container.close()
        raise UsageError(f"{path} is not a video or image file; give one that is")
    return container


def main_video(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not an attached picture.

    Raises UsageError where there is none, DamagedInputError where there is nothing at all.
    """
    for stream in container.streams.video:
        if not is_cover(stream):
            # PyAV leaves the codec context out where FFmpeg has no decoder.
            if getattr(stream, "codec_context", None) is None:
                raise UsageError(f"{path}: no decoder for its video codec; convert it first")
            return stream
    if not len(container.streams):  # MP4 tracks without a sample do not show up at all
        raise DamagedInputError(f"{path} holds no frames; get a complete copy")
    raise UsageError(f"{path} holds no video stream; give a file with a picture")


def is_cover(stream: Stream) -> bool:
    """True for cover art, which FFmpeg shows as a video stream of one picture."""
    return bool(stream.disposition & Disposition.attached_pic)


def is_image_file(container: InputContainer, stream: VideoStream) -> bool:
    """True if the file is a still picture, not a video that happens to be short."""
    name = container.format.name
    if name in _ANIMATION_DEMUXERS:
        return stream.frames == 1
    return name.endswith("_pipe") or name in _IMAGE_DEMUXERS


def is_animated_webp(path: Path) -> bool:
    """True for the kind of WebP of which FFmpeg decodes nothing."""
    with path.open("rb") as file:
        start = file.read(21)
    return start[8:16] == b"WEBPVP8X" and bool(start[20] & 2)


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give a video or image file")
    if not path.exists():
        if "%" in path.name or "*" in path.name:
            raise UsageError(
                f"{path} does not exist: for numbered images give the folder, and a rate like -r 24"
            )
        raise UsageError(f"{path} does not exist; check the name")
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file; give a video or image file")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} cannot be read: permission denied")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty; give a video or image file")


def _unopenable(path: Path, error: av.FFmpegError) -> UsageError | DamagedInputError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"{path} cannot be read: permission denied")
    with path.open("rb") as file:
        start = file.read(16)
    for offset, marks in _SIGNATURES:
        if any(start[offset:].startswith(mark) for mark in marks):
            return DamagedInputError(
                f"{path} is damaged or cut off ({error.strerror}); get a complete copy"
            )
    return UsageError(f"{path} is not a video or image file; give one that is")
