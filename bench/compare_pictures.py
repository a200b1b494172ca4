"""Pictures kept while two films are compared: for the page, and for a strip of crops."""

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vr_trt.bench.rgb_film import Picture01
from vr_trt.bench.whole_file import write_whole
from vr_trt.errors import UsageError

MARGIN = 6  # pixels between the pictures of a strip


class PagePictures:
    """At most `limit` frames as JPEG: every one of a short clip, evenly spaced ones of a film.

    Where the limit is reached, every other kept frame is dropped and the step is doubled, so that
    nothing need be known of the film's length.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._step = 1
        self.indices: list[int] = []
        self.pictures: list[list[str]] = []  # for each kept frame, its films' pictures as base64

    def add(self, index: int, pictures: Sequence[Picture01]) -> None:
        """Frame `index` of every film."""
        if index % self._step:
            return
        if len(self.indices) == self._limit:
            self._step *= 2
            self.indices, self.pictures = self.indices[::2], self.pictures[::2]
            if index % self._step:
                return
        self.indices.append(index)
        self.pictures.append([b64encode(_jpeg(picture)).decode() for picture in pictures])


class Strip:
    """One frame of each film side by side, or a crop of it, as a PNG for papers and readmes."""

    def __init__(self, frame: int, crop: tuple[int, int, int, int] | None = None) -> None:
        """`crop` is (left, top, width, height) in pixels."""
        self._frame = frame
        self._crop = crop
        self._pictures: list[Picture01] = []

    def add(self, index: int, pictures: Sequence[Picture01]) -> None:
        """Frame `index` of every film; the last one seen stands in for a frame beyond the end."""
        if index <= self._frame:
            self._pictures = [self._cropped(picture) for picture in pictures]

    def save(self, path: Path) -> None:
        """Write the strip, whole or not at all."""
        from PIL import Image

        height = self._pictures[0].shape[0]
        gap = np.ones((height, MARGIN, 3), np.float32)
        parts = [part for picture in self._pictures for part in (gap, picture)][1:]
        buffer = io.BytesIO()
        Image.fromarray(_levels(np.concatenate(parts, axis=1))).save(buffer, "PNG", optimize=True)
        write_whole(path, buffer.getvalue())

    def _cropped(self, picture: Picture01) -> Picture01:
        if self._crop is None:
            return picture
        left, top, width, height = self._crop
        if left + width > picture.shape[1] or top + height > picture.shape[0]:
            raise UsageError(
                f"the crop {self._crop} reaches outside of {picture.shape[1]}x{picture.shape[0]} "
                "pixels: choose a part of the picture"
            )
        return picture[top : top + height, left : left + width]


def _jpeg(picture: Picture01) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # 4:4:4 and a high quality: what is compared must not be the JPEG's own damage.
    Image.fromarray(_levels(picture)).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _levels(picture: Picture01) -> np.ndarray:
    return (255 * picture.clip(0, 1) + 0.5).astype(np.uint8)
