"""Tiny clips and pictures, made with PyAV when a test asks for them; and what workers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.stream import VideoStream
from tests.spreading import make_film, run

from vr_trt.runtime.frames import Plane
from vr_trt.runtime.packing import packing_of
from vr_trt.runtime.planes import Planes, build_frame

AUDIO_RATE = 16000
AUDIO_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What `make_clip` takes by name, with its defaults."""

    frames: int = 5
    size: tuple[int, int] = (32, 24)  # width, height as stored
    rate: int | Fraction = 25
    pix_fmt: str = "yuv420p"
    codec: str = "libx264"
    options: dict[str, str] | None = None  # of the video encoder
    audio: float = 0  # seconds of sound; none by default
    audio_codec: str = "aac"
    audio_bits: int = 0  # a second; the encoder's own by default
    rotation: int = 0  # degrees clockwise that show it upright
    mirrored: bool = False  # left to right, after turning
    tags: tuple[int, int, int, int] | None = None  # primaries, transfer, matrix (H.273), range
    pts: Sequence[int] | None = None  # one a frame, in units of time_base
    time_base: Fraction | None = None  # seconds; one frame by default
    aspect: Fraction | None = None  # of a pixel
    metadata: dict[str, str] | None = None

    @property
    def base(self) -> Fraction:
        """Seconds per unit of pts."""
        return self.time_base or 1 / Fraction(self.rate)

    @property
    def step(self) -> int:
        """Units of pts per frame."""
        return max(1, round(1 / (Fraction(self.rate) * self.base)))


def picture(number: int, width: int, height: int, pix_fmt: str) -> Planes:
    """A moving pattern without symmetry, different in every frame and plane."""
    packing = packing_of(pix_fmt)
    assert packing is not None
    top = 2**packing.bits - 1
    planes: list[Plane] = []
    for index in range(3):
        across, down = packing.chroma if index else (1, 1)
        rows, columns = np.mgrid[0 : -(-height // down), 0 : -(-width // across)]
        wave = np.sin((columns * across + 3 * number) / 7 + index) + np.cos(rows * down / 5)
        ramp = (columns * across / width + 2 * rows * down / height) / 3
        values = top * (0.2 + 0.4 * ramp + 0.08 * (wave + 2))
        planes.append(np.round(values).astype(np.uint8 if packing.bits == 8 else np.uint16))
    return planes[0], planes[1], planes[2]


def write_clip(path: Path, **choices: Any) -> Path:
    """Write `picture(0)`, `picture(1)`, … as a video, with a tone beside it if asked for."""
    clip = Clip(**choices)
    with av.open(str(path), "w") as output:
        output.metadata.update(clip.metadata or {})
        video = _add_video(output, clip)
        sound = output.add_stream(clip.audio_codec, rate=AUDIO_RATE) if clip.audio else None
        if sound is not None and clip.audio_bits:
            sound.codec_context.bit_rate = clip.audio_bits
        times = clip.pts or [number * clip.step for number in range(clip.frames)]
        for number, time in enumerate(times):
            frame = build_frame(picture(number, *clip.size, clip.pix_fmt), clip.pix_fmt)
            frame.pts, frame.time_base = time, clip.base
            following = times[number + 1] if number + 1 < len(times) else time + clip.step
            frame.duration = following - time
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            assert isinstance(sound, AudioStream)
            _write_tone(output, sound, clip.audio)
    return path


def _add_video(output: OutputContainer, clip: Clip) -> VideoStream:
    stream = output.add_stream(clip.codec, rate=Fraction(clip.rate), options=clip.options or {})
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = *clip.size, clip.pix_fmt
    stream.time_base = context.time_base = clip.base
    context.flags |= Flags.frame_duration
    if clip.tags is not None:
        context.color_primaries, context.color_trc, context.colorspace = clip.tags[:3]
        context.color_range = clip.tags[3]
    if clip.aspect is not None:
        context.sample_aspect_ratio = clip.aspect
    if clip.rotation or clip.mirrored:
        stream.set_display_rotation(-clip.rotation, hflip=clip.mirrored)
    return stream


def _write_tone(output: OutputContainer, stream: AudioStream, seconds: float) -> None:
    layout = stream.codec_context.format.name
    for block in range(round(seconds * AUDIO_RATE / AUDIO_BLOCK)):
        at = np.arange(AUDIO_BLOCK) + block * AUDIO_BLOCK
        tone = 0.3 * np.sin(at * 0.17)
        if layout == "fltp":
            samples = np.stack([tone, tone]).astype(np.float32)
        else:
            samples = np.repeat(tone * 32767, 2)[None].astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format=layout, layout="stereo")
        frame.sample_rate, frame.pts = AUDIO_RATE, block * AUDIO_BLOCK
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    """make_clip(path, frames=…, size=…, audio=…, rotation=…, …) → path; choices as in `Clip`."""
    return write_clip


@pytest.fixture
def make_picture() -> Callable[[int, int, int, str], Planes]:
    """make_picture(number, width, height, pix_fmt): the planes of a frame of make_clip."""
    return picture


# Of test_spread_run.py and test_ray_pool.py; other files have their own of these names.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.fake_model import make_fake_model  # not all that run on a GPU have onnx

    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "in.mkv")


@pytest.fixture(scope="module")
def whole(
    film: Path, model: str, small_pictures: None, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """What one worker makes, in its own process."""
    output = tmp_path_factory.mktemp("whole") / "out.mp4"
    done = run(film, model, output)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()
