"""Windows of latents of real clips: what the generator is calibrated and judged on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import FRAMES_PER_LATENT, START_FRAMES, EncodeStream

Latents = NDArray[np.float32]  # [1, C, T, h, w]


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """One window of a clip; windows of a clip do not overlap."""

    clip: str
    first: int  # latent
    latents: Latents


def clip_windows(
    path: Path, model: Model, short_side: int, latents: int, most: int
) -> list[ClipWindow]:
    """Up to `most` windows of `latents` latents from the start of the clip in `path`, encoded.

    UsageError if the clip is shorter than one window.
    """
    info = probe(path)
    size = canvas(info.width, info.height, short_side)
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    target = Picture(width=size.out_w, height=size.out_h, pixel=info.pixel)
    pixels, stream = PixelStages(source, target, size, "none"), EncodeStream(model, StatePool())
    encoded: list[Latents] = []
    with Reader(path, info) as reader:
        frames = iter(reader)
        while sum(part.shape[2] for part in encoded) < latents * most:
            chunk = list(islice(frames, FRAMES_PER_LATENT if encoded else START_FRAMES))
            if len(chunk) < (FRAMES_PER_LATENT if encoded else START_FRAMES):
                break
            encoded.append(stream.push(pixels.to_model(chunk)))
    if sum(part.shape[2] for part in encoded) < latents:
        needed = START_FRAMES + FRAMES_PER_LATENT * (latents - 2)
        raise UsageError(f"{path} is shorter than a window of {needed} frames: give a longer clip")
    return list(_cut(path.name, np.concatenate(encoded, 2), latents))


def _cut(name: str, whole: Latents, latents: int) -> Iterator[ClipWindow]:
    for first in range(0, whole.shape[2] - latents + 1, latents):
        yield ClipWindow(name, first, whole[:, :, first : first + latents])
