"""What a video or image file holds, found out by opening it and decoding its first frame."""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.frames import UNSPECIFIED, Matrix, PixelFormat, VideoInfo
from vr_trt.runtime.hdr import dynamic_metadata, is_dolby_vision_alone, read_hdr
from vr_trt.runtime.image_sequence import folder_info, image_files
from vr_trt.runtime.media import is_animated_webp, is_image_file, main_video, open_input
from vr_trt.runtime.orientation import orientation
from vr_trt.runtime.packing import Packing, nearest_planar, packing_of
from vr_trt.runtime.pipe import DASH, Pipe
from vr_trt.runtime.tags import read_matrix, read_range, turn_siting, usual_siting

_FALLBACK_RATE = Fraction(25)
_HIGHEST_RATE = 1000


def probe(path: Path, rate: Fraction | None = None) -> VideoInfo:
    """Open the file, decode one frame, and say what it is.

    `path` may be a folder of images, which needs a `rate` in frames a second, or `-`, standard
    input. Raises UsageError for what is no video or image, DamagedInputError where nothing decodes.
    """
    if path == DASH:
        pipe = Pipe()
        info = _Facts(path, pipe.container, pipe.stream, pipe.first).info()
        return replace(info, pipe=pipe, solitary=True)
    if path.is_dir():
        first = image_files(path)[0]
        if rate is None:
            raise UsageError(f"{path} is a folder of images: say how many per second, like -r 24")
        return folder_info(probe(first), path, rate)
    with open_input(path) as container:
        stream = main_video(container, path)
        decoder = Decoder(container, stream, path)
        frame = next(iter(decoder), None)
        if frame is None:
            if is_animated_webp(path):
                raise UsageError(f"{path} is an animated WebP, which cannot be read: make it a GIF")
            raise DamagedInputError(f"{path}: no picture could be decoded; get a complete copy")
        facts = _Facts(path, container, stream, frame)
        if rate is not None:
            facts.guesses.append("--rate is for folders of images: this file has its own times")
        return facts.info()


@dataclass
class _Facts:
    """Gathers the guesses while the answer is put together."""

    path: Path
    container: InputContainer
    stream: VideoStream
    frame: av.VideoFrame
    guesses: list[str] = field(default_factory=list)

    def info(self) -> VideoInfo:
        image = is_image_file(self.container, self.stream)
        rotation, mirrored, note = orientation(self.frame, self.path)
        self._note(note)
        pixel = self._pixel(image, rotation, mirrored)
        width, height = self.frame.width, self.frame.height
        aspect = self.stream.sample_aspect_ratio or Fraction(1)
        if rotation % 180:
            width, height, aspect = height, width, 1 / aspect
        assert self.stream.time_base is not None, "an opened stream has a time base"
        return VideoInfo(
            path=self.path,
            width=width,
            height=height,
            pixel=pixel,
            time_base=self.stream.time_base,
            frame_rate=self._rate(),
            frames=1 if image else self.stream.frames or None,
            seconds=None if image else self._seconds(),
            sample_aspect=aspect,
            rotation=rotation,
            is_image=image,
            audio_streams=len(self.container.streams.audio),
            guesses=tuple(self.guesses),
            mirrored=mirrored,
            hdr=read_hdr(self.frame),
            interlaced=self.frame.interlaced_frame and not image,
        )

    def _note(self, line: str | None) -> None:
        if line is not None:
            self.guesses.append(line)

    def _pixel(self, image: bool, rotation: int, mirrored: bool) -> PixelFormat:
        frame, name = self.frame, self.frame.format.name
        if is_dolby_vision_alone(frame):
            raise UsageError(
                f"{self.path} is Dolby Vision without a base layer for other players (profile 5): "
                "its colours cannot be read; convert it to HDR10 first"
            )
        packing = self._packing(name)
        size = (frame.width, frame.height)
        matrix = self._matrix(packing, size, image)
        full_range, note = read_range(frame.color_range, name, packing, image)
        self._note(note)
        self._note(dynamic_metadata(frame))
        chroma = packing.chroma[::-1] if rotation % 180 else packing.chroma
        siting = usual_siting(self.stream.codec_context.name, frame.color_trc, image)
        return PixelFormat(
            bits=packing.bits,
            layout=packing.layout,
            chroma=chroma,
            matrix=matrix,
            full_range=full_range,
            siting=turn_siting(siting, rotation, mirrored, size),
            primaries=frame.color_primaries or UNSPECIFIED,
            transfer=frame.color_trc or UNSPECIFIED,
        )

    def _matrix(self, packing: Packing, size: tuple[int, int], image: bool) -> Matrix:
        if packing.layout == "rgb":
            return "rgb"
        grey = packing.layout == "gray"  # it looks the same whatever the matrix, PNG's says "RGB"
        matrix, note = read_matrix(UNSPECIFIED if grey else self.frame.colorspace, size, image)
        if matrix is None:
            raise UsageError(
                f"{self.path}: its colour matrix (H.273 code {self.frame.colorspace}) is not "
                "supported; convert it to BT.709 first"
            )
        if not grey:
            self._note(note)
        return matrix

    def _packing(self, name: str) -> Packing:
        if any(part.is_alpha for part in self.frame.format.components):
            self._note("transparency is dropped")
        packing = packing_of(name)
        if packing is None:
            planar = nearest_planar(name)
            self._note(f"pixel format {name} is unpacked to {planar}")
            packing = packing_of(planar)
        assert packing is not None, f"no arrangement for {name}"
        return packing

    def _rate(self) -> Fraction:
        for rate in (self.stream.average_rate, self.stream.guessed_rate):
            if rate and 0 < rate <= _HIGHEST_RATE:
                return rate
        self._note(f"the frame rate is unknown: {_FALLBACK_RATE} is assumed for estimates")
        return _FALLBACK_RATE

    def _seconds(self) -> float | None:
        """Length of the video stream, else of the whole file."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        tagged = re.fullmatch(
            r"(\d{1,6}):(\d\d):(\d\d(?:\.\d+)?)", self.stream.metadata.get("DURATION", "")
        )
        if tagged:  # Matroska keeps the end of each stream as a tag
            hours, minutes, rest = tagged.groups()
            return self._since_start(int(hours) * 3600 + int(minutes) * 60 + float(rest))
        if self.container.duration:
            seconds = self.container.duration / av.time_base
            return (
                self._since_start(seconds) if "matroska" in self.container.format.name else seconds
            )
        return None

    def _since_start(self, end: float) -> float:
        """Length of a stream that ends at `end`, where that is after its start."""
        if self.stream.start_time is None or self.stream.time_base is None:
            return end
        length = end - float(self.stream.start_time * self.stream.time_base)
        return length if length > 0 else end
