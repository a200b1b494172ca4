"""Folders of images as a film, and films as numbered images."""

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.media import url_of
from vr_trt.runtime.publish import IMAGE_CODECS

_READABLE = {*IMAGE_CODECS, ".bmp", ".exr", ".dpx", ".tga"}
_IN_A_ROW = 10  # damaged images after which the rest is given up
_NUMBER = re.compile(r"%0?(\d{0,2})d", re.ASCII)
_RATE = re.compile(r"\d{1,9}(\.\d{1,9}|/\d{1,9})?", re.ASCII)


def parse_rate(text: str) -> Fraction:
    """Frames a second: 24, 23.976 or 24000/1001. UsageError for what is none."""
    try:
        rate = Fraction(text) if _RATE.fullmatch(text) else Fraction(0)
    except ZeroDivisionError:
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(f"{text!r} is not a frame rate: write 24, 23.976 or 24000/1001")
    return rate


def image_files(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in the order of the numbers in their names. UsageError for none.

    Of several kinds, those of which there are most.
    """
    return _most(_images_by_kind(folder))


def _images_by_kind(folder: Path) -> dict[str, list[Path]]:
    kinds: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in _READABLE and not path.name.startswith("."):
            kinds.setdefault(path.suffix.lower(), []).append(path)
    if not kinds:
        raise UsageError(f"{folder} is a directory without images; give a video or image file")
    return kinds


def _most(kinds: dict[str, list[Path]]) -> tuple[Path, ...]:
    _, files = max((len(files), files) for files in kinds.values())
    return tuple(sorted(files, key=_by_numbers))


def _remarks(folder: Path, files: tuple[Path, ...]) -> list[str]:
    """What of a folder is not in its film, one line each."""
    lines = []
    others = sum(map(len, _images_by_kind(folder).values())) - len(files)
    if others:
        kind = files[0].suffix.lower()
        images = counted(others, f"image that is not {kind} is", f"images that are not {kind} are")
        lines.append(f"{images} left out")
    gaps = [pair for pair in pairwise(files) if _missing(*pair)]
    missing = sum(_missing(*pair) for pair in gaps)
    if 0 < missing <= len(files):  # more: the numbers are dates, or none of a sequence
        one, two = gaps[0]
        numbers = counted(missing, "number is", "numbers are")
        lines.append(f"{numbers} missing, the first between {one.name} and {two.name}")
    return lines


def _missing(one: Path, two: Path) -> int:
    """How many numbers lie between two names that differ in one number only."""
    pairs = zip(_by_numbers(one), _by_numbers(two), strict=False)
    changed = [(a, b) for (a, word), (b, other) in pairs if (a, word) != (b, other)]
    if len(changed) != 1 or len(_by_numbers(one)) != len(_by_numbers(two)):
        return 0
    return max(0, changed[0][1] - changed[0][0] - 1)


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", path.name)  # every second one is a number
    return [(int(word), "") if i % 2 else (-1, word) for i, word in enumerate(words)]


def folder_info(first: VideoInfo, folder: Path, rate: Fraction) -> VideoInfo:
    """What a folder of images is as a film, from what its first image is."""
    files = image_files(folder)
    return replace(
        first,
        path=folder,
        images=files,
        time_base=1 / rate,
        frame_rate=rate,
        frames=len(files),
        seconds=float(len(files) / rate),
        is_image=False,
        solitary=True,
        guesses=(*first.guesses, *_remarks(folder, files)),
    )


class ImageDecoder:
    """Iterates over the pictures of image files, as Decoder does over the frames of a stream."""

    def __init__(self, files: tuple[Path, ...], time_base: Fraction) -> None:
        self.skipped = 0
        self.warnings: list[str] = []
        self.first_dts: int | None = None
        self._files = files
        self._time_base = time_base

    def __iter__(self) -> Iterator[av.VideoFrame]:
        in_a_row = 0
        for number, path in enumerate(self._files):
            try:
                with av.open(url_of(path)) as container:
                    frame = next(container.decode(video=0))
            except (av.FFmpegError, StopIteration, IndexError) as error:
                self.skipped += 1
                in_a_row += 1
                if in_a_row >= _IN_A_ROW:
                    raise DamagedInputError(
                        f"{path} and the {in_a_row - 1} images before it are damaged; replace them"
                    ) from error
                continue
            in_a_row = 0
            frame.pts, frame.time_base, frame.duration = number, self._time_base, 1
            yield frame


def is_numbered(path: Path) -> bool:
    """True for a name like %05d.png: one image a frame."""
    return path.suffix.lower() in IMAGE_CODECS and bool(_NUMBER.search(path.name))


def numbered(path: Path, number: int) -> Path:
    """The path of image `number`, counted from 1."""
    digits = int((_NUMBER.search(path.name) or [0, 0])[1] or 0)
    return path.with_name(_NUMBER.sub(f"{number:0{digits}}", path.name, count=1))


def check_numbered(path: Path, overwrite: bool) -> None:
    """UsageError if there are images of those names that must stay; any other output passes."""
    if is_numbered(path) and numbered(path, 1).exists() and not overwrite:
        raise UsageError(f"{numbered(path, 1)} exists; allow it to be replaced with --overwrite")
