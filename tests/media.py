"""Small files for the tests: a moving gradient as video, a gradient as an image."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

RATE = 25


def picture(index: int, width: int, height: int) -> np.ndarray:
    """[H, W, 3] uint8: a gradient that moves with `index`."""
    x, y = np.arange(width), np.arange(height)[:, None]
    red = (x + 4 * index) * 200 // max(width, 1) % 200 + 20
    green = y * 200 // max(height, 1) + 20 + 0 * x
    return np.stack([red + 0 * y, green, np.full_like(green, 90)], axis=-1).astype(np.uint8)


def make_video(
    path: Path,
    *,
    frames: int,
    size: tuple[int, int],
    pixel: str = "yuv420p",
    times: Sequence[int] | None = None,
    audio: bool = False,
    rotation: int = 0,
) -> Path:
    """Write `frames` pictures of `size` (width, height) as stored, FFV1 in .mkv, H.264 in .mp4.

    `times` are in 1/25 s; `rotation` in degrees clockwise.
    """
    width, height = size
    codec = "ffv1" if path.suffix == ".mkv" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        assert isinstance(stream, VideoStream)
        if rotation:
            stream.set_display_rotation(-rotation)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel
        stream.codec_context.time_base = Fraction(1, RATE)
        tone = container.add_stream("aac", rate=48000, layout="mono") if audio else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.start_encoding()  # the header, also where no frame follows
        container.mux(stream.encode(None))
        if tone is not None:
            samples = np.sin(np.arange(48000 * frames // RATE) / 20, dtype=np.float32)[None]
            sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, 0
            container.mux(tone.encode(sound))
            container.mux(tone.encode(None))
    return path


def make_image(path: Path, *, size: tuple[int, int], pixel: str = "rgb24") -> Path:
    """Write one picture of `size` (width, height)."""
    frame = av.VideoFrame.from_ndarray(picture(0, *size), format="rgb24")
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = *size, pixel
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_orientation(path: Path, exif: int) -> Path:
    """Tell in a JPEG file how it lies, by EXIF's number."""
    entry = struct.pack("<HHHIHHI", 1, 0x112, 3, 1, exif, 0, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return path


def seconds(frames: Sequence[av.VideoFrame]) -> list[Fraction]:
    """When each frame is shown."""
    times = []
    for frame in frames:
        assert frame.pts is not None and frame.time_base is not None
        times.append(frame.pts * frame.time_base)
    return times


def read_frames(path: Path) -> list[av.VideoFrame]:
    """Every frame of a file."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))
