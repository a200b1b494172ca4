"""Makes the demo clip: `python -m vr_trt.bench.demo_clip PATH [--clean PATH] [--frames N] ...`.

The clean scene of `vr_trt.bench.demo_scene` goes through what harms real footage: defocus, a
camera of half the resolution, noise in luma and colour, and a starved H.264 encoder. The sound is
our own: one plucked note each time the front print lands, panned to where it is.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian

from vr_trt.bench.demo_scene import BEAT, Picture, Scene, draw, front_x
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.kernels.resample import chroma_down_matrix

SHRINK = 2
CRF = 29
CLEAN_CRF = 8
SOUND_RATE = 48_000
SOUND_BLOCK = 1024  # samples of an AAC frame
_CHORD = (220.0, 277.18, 329.63, 440.0, 329.63, 277.18)  # Hz: A major, up and down
_BT709 = 1  # the code of H.273 for matrix, primaries and transfer alike
_LIMITED = 1  # FFmpeg's code of the range


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What the degraded clip suffers; deviations are in units of the white level."""

    blur: float = 0.8  # pixels of the clean picture
    luma_noise: float = 0.022
    chroma_noise: float = 0.02


def make(path: Path, scene: Scene, clean: Path | None = None) -> None:
    """Write the degraded clip to `path`, and the clean one to `clean` if given.

    Raises UsageError for a size that cannot be halved into 4:2:0, or a target not writable.
    """
    if scene.width % (2 * SHRINK) or scene.height % (2 * SHRINK) or min(scene.size) < 64:
        raise UsageError(
            f"a scene of {scene.width}x{scene.height} cannot be made; "
            f"give multiples of {2 * SHRINK}, 64 or more"
        )
    if not 1 <= scene.frames <= 10_000:
        raise UsageError(f"cannot make a clip of {scene.frames} frames; give 1 to 10000")
    if scene.seed < 0:
        raise UsageError(f"a seed of {scene.seed} is not possible; give 0 or more")
    _encode(path, _degraded(draw(scene), Damage(), scene.seed), scene, CRF)
    if clean is not None:
        _encode(clean, draw(scene), scene, CLEAN_CRF)


def _degraded(frames: Iterable[Picture], damage: Damage, seed: int) -> Iterator[Picture]:
    """Blurred, halved and noisy frames [H/2, W/2, 3]."""
    random = np.random.default_rng(seed + 1)
    for frame in frames:
        soft = gaussian(frame, damage.blur, channel_axis=2)
        h, w = soft.shape[0] // SHRINK, soft.shape[1] // SHRINK
        small = soft.reshape(h, SHRINK, w, SHRINK, 3).mean(axis=(1, 3))
        noise = damage.luma_noise * random.standard_normal((h, w, 1))
        # Colour noise of a cheap sensor is coarse: its demosaicing and denoising spread it.
        colour = gaussian(random.standard_normal((h, w, 3)), 1.0, channel_axis=2)
        colour *= damage.chroma_noise / colour.std()
        yield np.clip(small + noise + colour, 0, 1).astype(np.float32)


def _encode(path: Path, frames: Iterable[Picture], scene: Scene, crf: int) -> None:
    """Write H.264 with BT.709 tags and AAC, in one file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            video = None
            sound = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
            for i, picture in enumerate(frames):
                if video is None:
                    video = _video_stream(container, picture, scene.rate, crf)
                frame = av.VideoFrame.from_ndarray(_yuv420(picture), format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, scene.rate)
                frame.colorspace, frame.color_range = _BT709, _LIMITED
                container.mux(video.encode(frame))
            for block in _sound_frames(scene):
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
            if video is not None:
                container.mux(video.encode(None))
    except (OSError, ValueError, av.FFmpegError) as error:
        raise UsageError(f"cannot write {path}: {error}; name a writable .mp4 file") from error


def _video_stream(
    container: av.container.OutputContainer, picture: Picture, rate: int, crf: int
) -> av.VideoStream:
    # The same scene is to give the same bytes. x264's macroblock tree does not, even on one thread.
    options = {"crf": str(crf), "preset": "medium", "threads": "1", "mbtree": "0"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


def _yuv420(picture: Picture) -> NDArray[np.uint8]:
    """RGB [H, W, 3] in 0..1 → planes of 8-bit limited-range BT.709 4:2:0, stacked [3H/2, W]."""
    r, g, b = np.moveaxis(picture, 2, 0)
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    height, width = luma.shape
    rows = chroma_down_matrix(height, height // 2, 2, "center")
    cols = chroma_down_matrix(width, width // 2, 2, "co-sited")
    cb, cr = (rows @ plane @ cols.T for plane in ((b - luma) / 1.8556, (r - luma) / 1.5748))
    codes = [16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr]
    stacked = np.concatenate([plane.ravel() for plane in codes])
    return stacked.round().clip(0, 255).astype(np.uint8).reshape(-1, width)


def _sound(scene: Scene) -> NDArray[np.float32]:
    """Stereo samples [2, N] of the whole clip: a plucked note on every beat."""
    length = round(scene.seconds * SOUND_RATE)
    mix = np.zeros((2, length))
    for beat in range(math.ceil(scene.seconds / BEAT)):
        start = round(beat * BEAT * SOUND_RATE)
        t = np.arange(length - start) / SOUND_RATE
        pitch = _CHORD[beat % len(_CHORD)]
        overtones = (
            np.sin(2 * np.pi * k * pitch * t) * np.exp(-3 * k * t) / k for k in range(1, 6)
        )
        note = sum(overtones) * (1 - np.exp(-200 * t))
        side = math.pi / 4 * (1 + front_x(beat * BEAT))  # left 0, right pi / 2
        mix[:, start:] += 0.3 * np.outer((math.cos(side), math.sin(side)), note)
    return np.tanh(mix).astype(np.float32)


def _sound_frames(scene: Scene) -> Iterator[av.AudioFrame]:
    samples = _sound(scene)
    for start in range(0, samples.shape[1], SOUND_BLOCK):
        block = np.ascontiguousarray(samples[:, start : start + SOUND_BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        frame.time_base = Fraction(1, SOUND_RATE)
        yield frame


def _parsed_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 640x360")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="vr_trt.bench.demo_clip", description="Make a demo clip.")
    parser.add_argument("path", type=Path, help="the degraded clip to write")
    parser.add_argument("--clean", type=Path, help="where to write the clean clip too")
    parser.add_argument("--frames", type=int, default=Scene().frames)
    parser.add_argument(
        "--size",
        type=_parsed_size,
        default=Scene().size,
        metavar="WxH",
        help="size of the clean clip; the degraded one has half of it",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    scene = Scene(width=given.size[0], height=given.size[1], frames=given.frames, seed=given.seed)
    try:
        make(given.path, scene, given.clean)
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    size = f"{scene.width // SHRINK}x{scene.height // SHRINK}"
    print(f"{given.path}: {scene.frames} frames of {size} with sound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
