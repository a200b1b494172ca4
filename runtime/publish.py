"""How an output gets its name: checked before work, written beside it, moved when complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from vr_trt.errors import UsageError

VIDEO_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
IMAGE_CODECS = {
    ".png": "png",
    ".jpg": "mjpeg",
    ".jpeg": "mjpeg",
    ".webp": "libwebp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_ERRORS = (*_FULL, *_FORBIDDEN, errno.EIO)


def muxer_of(
    path: Path,
    codec: str,  # the name of one of runtime/video_codecs.py
) -> str:
    """FFmpeg's name of the container for a video output; `-` is standard output."""
    if path.name == "-":
        return "yuv4mpegpipe" if codec == "y4m" else "matroska"
    return VIDEO_MUXERS[path.suffix.lower()]


def is_image_path(path: Path) -> bool:
    """True if the name asks for a picture rather than a video."""
    return path.suffix.lower() in IMAGE_CODECS


def check_target(path: Path, source: Path, overwrite: bool) -> None:
    """Raise UsageError, saying what to do, if a file of that name cannot or must not be written."""
    if path.name == "-":
        return  # standard output
    check_name(path)
    folder = followed(path).parent
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a directory; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written to: permission denied")
    if followed(path).is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"{path} is not a file and does not lead to one; give another name")
    for written in (path, partial_path(path)):
        if written.exists() and source.exists() and written.samefile(source):
            raise UsageError(f"{path} would replace the input; give another name")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another name, or allow it with --overwrite")


def check_name(path: Path) -> None:
    """UsageError for a name that no output can have."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give the name of a file in it")
    if path.suffix.lower() not in VIDEO_MUXERS | IMAGE_CODECS:
        raise UsageError(
            f"{path}: an output ends in {', '.join(VIDEO_MUXERS)} for video or in "
            f"{', '.join(IMAGE_CODECS)} for an image"
        )


def followed(path: Path) -> Path:
    """The file that a link leads to, there or not; a path that is no link as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def partial_path(path: Path) -> Path:
    """Where the output grows: hidden, in the same directory, so that moving it is atomic.

    Of a link, in the directory of the file that it leads to.
    """
    file = followed(path)
    return file.with_name(f".{file.stem}.partial{path.suffix}")


def publish(path: Path) -> None:
    """Bring the finished partial file to disk and give it its name; a link stays one."""
    partial, file = partial_path(path), followed(path)
    sync(partial)
    os.replace(partial, file)
    sync(file.parent)


def remove_partial(path: Path) -> None:
    """Leave nothing of an unfinished output behind."""
    partial_path(path).unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing into one line about the output."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            raise UsageError(f"{path}: the disk is full; free space and run again") from error
        if error.errno in _FORBIDDEN:
            raise UsageError(f"{path} cannot be written: {reason}; choose another place") from error
        raise UsageError(f"{path}: writing failed: {reason}; try another output name") from error


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
