"""Windows of real clips, as latents or as pictures: what fp8 is calibrated and judged on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import FRAMES_PER_LATENT
from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS, EncodeStream

Latents = NDArray[np.float32]  # [1, C, T, h, w]
Pixels = NDArray[np.float32]  # [1, 3, F, H, W] in -1..1
PEAK = 2.0  # the range of those


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """One window of a clip; windows of a clip do not overlap."""

    clip: str
    first: int  # latent
    latents: Latents


@dataclass(frozen=True, slots=True)
class ClipShot:
    """The pictures of one window, to be restored as a shot of its own."""

    clip: str
    first: int  # frame
    x: Pixels  # as the encoder takes them


def demo_clip(folder: Path, frames: int) -> Path:
    """The demo clip, made in `folder`, where none is given."""
    from vr_trt.bench.demo_clip import make
    from vr_trt.bench.demo_scene import Scene

    path = folder / "demo.mp4"
    make(path, Scene(frames=frames))
    return path


def clip_shots(path: Path, short_side: int, latents: int, most: int) -> list[ClipShot]:
    """Up to `most` shots of `latents` latents each from the start of the clip in `path`.

    UsageError if the clip is shorter than one.
    """
    frames = START_FRAMES + FRAMES_PER_LATENT * (latents - START_LATENTS)
    chunks = islice(_chunks(path, short_side, repeat(frames)), most)
    shots = [ClipShot(path.name, i * frames, x) for i, x in enumerate(chunks)]
    if not shots:
        raise UsageError(f"{path} is shorter than a window of {frames} frames: give a longer clip")
    return shots


def clip_windows(
    path: Path, model: Model, short_side: int, latents: int, most: int
) -> list[ClipWindow]:
    """Up to `most` windows of `latents` latents from the start of the clip in `path`, encoded.

    UsageError if the clip is shorter than one window.
    """
    sizes = chain([START_FRAMES], repeat(FRAMES_PER_LATENT))
    stream, encoded = EncodeStream(model, StatePool()), list[Latents]()
    for x in _chunks(path, short_side, sizes):
        encoded.append(stream.push(x))
        if sum(part.shape[2] for part in encoded) >= latents * most:
            break
    if sum(part.shape[2] for part in encoded) < latents:
        needed = START_FRAMES + FRAMES_PER_LATENT * (latents - START_LATENTS)
        raise UsageError(f"{path} is shorter than a window of {needed} frames: give a longer clip")
    return list(_cut(path.name, np.concatenate(encoded, 2), latents))


def _chunks(path: Path, short_side: int, sizes: Iterable[int]) -> Iterator[Pixels]:
    """The clip's frames on the canvas of `short_side`, so many at a time, until they run out."""
    info = probe(path)
    size = canvas(info.width, info.height, short_side)
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    target = Picture(width=size.out_w, height=size.out_h, pixel=info.pixel)
    pixels = PixelStages(source, target, size, "none")
    with Reader(path, info) as reader:
        frames = iter(reader)
        for count in sizes:
            chunk = list(islice(frames, count))
            if len(chunk) < count:
                return
            yield pixels.to_model(chunk)


def _cut(name: str, whole: Latents, latents: int) -> Iterator[ClipWindow]:
    for first in range(0, whole.shape[2] - latents + 1, latents):
        yield ClipWindow(name, first, whole[:, :, first : first + latents])
