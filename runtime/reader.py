"""A video or image file as a stream of upright frames, in constant memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.media import main_video, open_input
from vr_trt.runtime.packing import nearest_planar, packing_of, planar_name
from vr_trt.runtime.planes import Planes, take_planes, turn_planes
from vr_trt.runtime.probe import probe

__all__ = ["Reader", "probe"]

_SHORT_BY_SECONDS = 1.0  # a video that ends this much earlier than announced was cut off


class Reader:
    """Iterates over the frames of a file, once: upright planes, exact pts, durations.

    `skipped` counts packets that could not be decoded, `warnings` holds one line for each thing
    that went wrong on the way. Iterating raises DamagedInputError where too much is broken and
    UsageError where the picture changes its size.
    """

    def __init__(self, path: Path, info: VideoInfo | None = None) -> None:
        self.info = info if info is not None else probe(path)
        self._container = open_input(path)
        stream = main_video(self._container, path)
        self._decoder = Decoder(self._container, stream, path)
        self._path = path
        self._clock = _Clock(self.info)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._container.close()

    @property
    def skipped(self) -> int:
        """Packets that could not be decoded so far."""
        return self._decoder.skipped

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one line each."""
        lines = list(self._decoder.warnings)
        if self.skipped:
            lines.append(f"{self.skipped} damaged packets were skipped")
        if self._clock.repaired:
            lines.append(f"{self._clock.repaired} timestamps were missing or out of order")
        if self._clock.short_by is not None:
            lines.append(
                f"the video ends {self._clock.short_by:.1f} s earlier than announced; "
                "the file may be cut off"
            )
        return lines

    def __iter__(self) -> Iterator[Frame]:
        held: Frame | None = None  # a frame lasts until the next one
        for decoded in self._decoder:
            pts = self._clock.pts(decoded)
            if held is not None:
                yield replace(held, duration=pts - held.pts)
            held = Frame(self._planes(decoded), pts, decoded.duration or self._clock.step)
        if held is None:
            raise DamagedInputError(
                f"{self._path}: no picture could be decoded; get a complete copy"
            )
        self._clock.ended(held)
        yield held

    def _planes(self, decoded: av.VideoFrame) -> Planes:
        """The frame's planes, upright, in the pixel format and size that probing announced."""
        pixel, turned = self.info.pixel, self.info.rotation % 180
        stored = (self.info.width, self.info.height)[:: -1 if turned else 1]
        if (decoded.width, decoded.height) != stored:
            raise UsageError(
                f"{self._path}: the picture changes from {stored[0]}x{stored[1]} to "
                f"{decoded.width}x{decoded.height}; cut the file there"
            )
        name = decoded.format.name
        packing = packing_of(name) or packing_of(nearest_planar(name))
        assert packing is not None, f"no arrangement for {name}"
        chroma = pixel.chroma[::-1] if turned else pixel.chroma
        if (packing.layout, packing.bits, packing.chroma) != (pixel.layout, pixel.bits, chroma):
            if packing.layout != pixel.layout:
                raise UsageError(
                    f"{self._path}: the picture changes from {pixel.layout} to {packing.layout}; "
                    "cut the file there"
                )
            decoded = decoded.reformat(format=planar_name(pixel.layout, pixel.bits, chroma))
        return turn_planes(take_planes(decoded), self.info.rotation, self.info.mirrored)


class _Clock:
    """Makes timestamps strictly increasing where a file has none or contradicts itself."""

    def __init__(self, info: VideoInfo) -> None:
        self.step = max(1, round(1 / (info.frame_rate * info.time_base)))
        self.repaired = 0
        self.short_by: float | None = None
        self._info = info
        self._first: int | None = None
        self._next = 0  # where a frame without a timestamp goes
        self._last: int | None = None

    def pts(self, decoded: av.VideoFrame) -> int:
        """The frame's timestamp, or one that was made up, in units of the time base."""
        pts = decoded.pts
        if pts is None:
            self.repaired += 1
            pts = self._next
        if self._last is not None and pts <= self._last:
            self.repaired += 1
            pts = self._last + 1
        if self._first is None:
            self._first = pts
        self._last, self._next = pts, pts + (decoded.duration or self.step)
        return pts

    def ended(self, last: Frame) -> None:
        """Note where the video stops well before its announced length."""
        if self._info.seconds is None or self._first is None:
            return
        lasted = float((last.pts + last.duration - self._first) * self._info.time_base)
        if self._info.seconds - lasted > _SHORT_BY_SECONDS:
            self.short_by = self._info.seconds - lasted
