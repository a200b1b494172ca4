"""A film written as numbered images, each in its place as soon as it is made.

A segment is a stretch of images that are all on disk; its file in the journal lists them. What lies
after the last complete segment is made again.
"""

import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from vr_trt.errors import UsageError
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.entry import CHECKED_FRAMES
from vr_trt.runtime.frame_digest import frame_digest
from vr_trt.runtime.frames import Frame, Join
from vr_trt.runtime.image_sequence import numbered
from vr_trt.runtime.journal import Journal, Segment
from vr_trt.runtime.publish import sync
from vr_trt.runtime.still import encode_image


@dataclass(frozen=True, slots=True)
class _Image:
    """An image that is on disk."""

    path: Path
    bytes: int
    pts: int
    ends: int


class ImagesSink:
    """Images, counted from 1. Methods raise OSError or av.FFmpegError."""

    def __init__(self, target: OutputSpec, journal: Journal) -> None:
        """UsageError where images of a stopped run are not there any more."""
        self._target = target
        self._journal = journal
        for segment in journal.segments:
            _check_images(journal.segment_path(segment.first), target.path.parent)
        self._join = Join(journal.frames, 0)
        self._images: list[_Image] = []  # of the segment that grows
        self._tail: deque[str] = deque(maxlen=CHECKED_FRAMES)

    def write(self, frame: Frame) -> None:
        """Encode one image; a join ends the segment before it."""
        if frame.join is not None:
            if self._images:
                self._close(frame.join)
            self._join = frame.join
        number = self._join.frame + len(self._images) + 1
        path = numbered(self._target.path, number)
        data = encode_image(frame, self._target.pixel, path.suffix)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self._images.append(_Image(path, len(data), frame.pts, frame.pts + max(1, frame.duration)))
        self._tail.append(frame_digest(frame))

    def finish(self) -> None:
        """End the last segment."""
        if self._images:
            self._close(None)

    def discard(self) -> None:
        """Remove what belongs to no complete segment."""
        for image in self._images:
            image.path.unlink(missing_ok=True)
        self._images = []

    def _close(self, following: Join | None) -> None:
        """Bring the images to disk, list them, and note the segment."""
        for image in self._images:
            sync(image.path)
        sync(self._target.path.parent)
        listed = json.dumps({image.path.name: image.bytes for image in self._images})
        path = self._journal.segment_path(self._join.frame)
        path.write_text(listed, encoding="utf-8")
        sync(path)
        images, self._images = self._images, []
        self._journal.add(
            Segment(
                first=self._join.frame,
                frames=len(images),
                start_pts=images[0].pts,
                end_pts=images[-1].ends,
                depth=0,
                tail=tuple(self._tail),
                bytes=path.stat().st_size,
                following=following,
            )
        )


def _check_images(listed: Path, folder: Path) -> None:
    for name, size in json.loads(listed.read_text(encoding="utf-8")).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UsageError(f"{path} is missing or damaged: start over with --overwrite")
