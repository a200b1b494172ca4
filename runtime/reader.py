"""A video or image file as a stream of upright frames, in constant memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.clock import Clock, shown_as_decoded
from vr_trt.runtime.counted import counted
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.deinterlace import deinterlace
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.gpu_codecs import nvdec_context
from vr_trt.runtime.image_sequence import ImageDecoder
from vr_trt.runtime.media import main_video, open_input
from vr_trt.runtime.orientation import orientation
from vr_trt.runtime.packing import nearest_planar, packing_of, planar_name
from vr_trt.runtime.planes import Planes, take_planes, turn_planes
from vr_trt.runtime.probe import probe

if TYPE_CHECKING:
    from vr_trt.runtime.device_decoded import DecodedPicture, DecodedPictures

__all__ = ["Reader", "probe"]

_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers with an index of key frames
_DECODING_TIMES_ONLY = ("avi",)  # containers that know when to decode, not when to show


class SeekMissed(Exception):
    """The frame to start at did not come: read from the file's start instead."""


class Reader:
    """Iterates over the frames of a file, once: upright planes, exact pts, durations.

    `skipped` counts packets that could not be decoded; `warnings` has a line for each thing that
    went wrong. Iterating raises DamagedInputError where too much is broken and
    UsageError where the picture changes its size.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo | None = None,
        start: int | None = None,
        on_card: "DecodedPictures | None" = None,
    ) -> None:
        """`start`: pts of the first frame that is wanted, where `can_seek`; SeekMissed if it fails.

        Frames that look before it, within its group of pictures, are decoded and dropped.
        `on_card`: takes NVDEC's frames, which stay in the card's memory.
        """
        self._on_card = on_card
        self.info = info if info is not None else probe(path)
        self._path = path
        self._container: InputContainer | None = None
        self._decoder: Decoder | ImageDecoder
        self._frames: Iterable[av.VideoFrame]
        if self.info.images:
            self._frames = self._decoder = ImageDecoder(self.info.images, self.info.time_base)
        elif self.info.pipe is not None:
            self._frames, self._decoder = self.info.pipe, self.info.pipe.decoder
            self._container = self.info.pipe.container
        else:
            self._container = open_input(path)
            stream = main_video(self._container, path)
            context = nvdec_context(stream, on_card is not None) if self.info.nvdec else None
            self._frames = self._decoder = decoder = Decoder(self._container, stream, path, context)
            if self._container.format.name in _DECODING_TIMES_ONLY:
                self._frames = shown_as_decoded(decoder, decoder)
            if start is not None:
                self._frames = _from(self._container, stream, decoder, start)
        self._clock = Clock(self.info, whole=start is None)
        self._interlaced = self._corrupt = 0

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
        if self._container is not None:
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
            packets = counted(self.skipped, "damaged packet was", "damaged packets were")
            lines.append(f"{packets} skipped")
        if self._corrupt:
            frames = counted(self._corrupt, "damaged frame was", "damaged frames were")
            lines.append(f"{frames} restored as they are")
        if self._interlaced:
            frames = counted(self._interlaced, "interlaced frame was", "interlaced frames were")
            lines.append(
                f"{frames} restored as they are: --deinterlace field or frame takes them apart"
            )
        if self._clock.repaired:
            times = counted(self._clock.repaired, "timestamp was", "timestamps were")
            lines.append(f"{times} missing or out of order")
        if self._clock.short_by is not None:
            lines.append(
                f"the video ends {self._clock.short_by:.1f} s earlier than announced; "
                "the file may be cut off"
            )
        return lines

    def __iter__(self) -> Iterator[Frame]:
        held: Frame | None = None  # a frame lasts until the next one
        before: int | None = None
        decoded_frames = self._frames
        if self.info.deinterlace:
            decoded_frames = deinterlace(decoded_frames, self.info)
        for decoded in decoded_frames:
            self._interlaced += decoded.interlaced_frame and not self.info.interlaced
            self._corrupt += decoded.is_corrupt
            pts = self._clock.pts(decoded)
            if held is not None:
                shown, pts = self._clock.in_order(before, held.pts, pts)
                yield Frame(held.content, shown, pts - shown)
                before = shown
            held = Frame(self._content(decoded), pts, decoded.duration or self._clock.step)
        if held is None:
            raise DamagedInputError(
                f"{self._path}: no picture could be decoded; get a complete copy"
            )
        self._clock.ended(held)
        yield held

    def _content(self, decoded: av.VideoFrame) -> "Planes | DecodedPicture":
        """The upright picture, where it is to be."""
        rotation, _ = self._turn(decoded)
        upright = (decoded.width, decoded.height)[:: -1 if rotation % 180 else 1]
        if upright != (self.info.width, self.info.height):
            now = "{}x{}".format(*upright)
            raise self._changed(decoded, f"{self.info.width}x{self.info.height}", now)
        if self._on_card is None:
            return self._planes(decoded)
        there = decoded.sw_format or decoded.format
        to_host = lambda: self._planes(decoded.reformat(format=there.name))
        return self._on_card.take(decoded, to_host)

    def _turn(self, decoded: av.VideoFrame) -> tuple[int, bool]:
        """Degrees clockwise and mirrored afterwards: the film's, of a folder each image's own."""
        if not self.info.images or decoded.pts is None:
            return self.info.rotation, self.info.mirrored
        rotation, mirrored, _ = orientation(decoded, self.info.images[decoded.pts])
        return rotation, mirrored

    def _planes(self, decoded: av.VideoFrame) -> Planes:
        """The frame's planes, upright, in the pixel format that probing announced."""
        pixel, turn = self.info.pixel, self._turn(decoded)
        name = decoded.format.name
        packing = packing_of(name) or packing_of(nearest_planar(name))
        assert packing is not None, f"no arrangement for {name}"
        chroma = pixel.chroma[::-1] if turn[0] % 180 else pixel.chroma
        if 4 in chroma and (turn[0] - self.info.rotation) % 180:  # no format has it standing
            raise self._changed(decoded, "not", "4:1:1 and turned")
        if (packing.layout, packing.bits, packing.chroma) != (pixel.layout, pixel.bits, chroma):
            greyed = (packing.layout, pixel.layout) == ("gray", "rgb") and self.info.images
            if packing.layout != pixel.layout and not greyed:
                raise self._changed(decoded, pixel.layout, packing.layout)
            wanted = planar_name(packing.layout, pixel.bits, chroma)
            decoded = decoded.reformat(format=wanted, threads=1)
            if greyed:  # a scanner's grey page among coloured ones
                luma = take_planes(decoded)[0]
                return turn_planes((luma, luma, luma), *turn)
        return turn_planes(take_planes(decoded), *turn)

    def _changed(self, decoded: av.VideoFrame, before: str, now: str) -> UsageError:
        """The error for a picture that is no longer what it was at the start."""
        if self.info.images and decoded.pts is not None:
            name = self.info.images[decoded.pts]
            return UsageError(f"{name} is {now}, the first image {before}: make them alike")
        at = "" if decoded.time is None else f" at {decoded.time:.2f} s"
        return UsageError(
            f"{self._path}: the picture changes from {before} to {now}{at}; split it there"
        )


def can_seek(info: VideoInfo) -> bool:
    """Whether a reader may start in the middle, with the times and frames of a whole reading."""
    if info.solitary or info.is_image or info.deinterlace:
        return False
    with open_input(info.path) as container:
        return container.format.name in _SEEKABLE


def _from(
    container: InputContainer, stream: VideoStream, decoder: Decoder, start: int
) -> Iterator[av.VideoFrame]:
    """Decoded frames from the one with pts `start` on."""
    # A second early: an index goes by the time of decoding, which may lie before that of showing.
    early = start - round(1 / (stream.time_base or 1))
    try:
        container.seek(max(early, stream.start_time or 0), stream=stream)
    except av.FFmpegError:
        raise SeekMissed from None
    begun = False
    for frame in decoder:
        if not begun and (frame.pts is None or frame.pts > start):
            raise SeekMissed
        begun = begun or frame.pts == start
        if begun:
            yield frame
    if not begun:
        raise SeekMissed
