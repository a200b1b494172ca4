"""Held-out clips whose motions and damage training never draws: the test of what nano learned.

Motion is a hand that shakes in circles and a zoom that breathes, with a disc of the second picture
that turns in front. Damage is motion blur, reduction by averaging, grain that grows with the
light, and MPEG-2, MPEG-4 or HEVC at a low rate.
"""

import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator as Rng

from vr_trt.export.nano.data import Clip, film, photograph
from vr_trt.export.nano.degrade import Codec, encode_and_decode, to_levels

# What a low rate is to each encoder: its own quality scale, so that rate control cannot drift.
CODECS = (
    Codec("mpeg2video", "yuv420p", {"qmin": "6", "qmax": "6"}),
    Codec("mpeg4", "yuv420p", {"qmin": "6", "qmax": "6"}),
    Codec("libx265", "yuv420p", {"crf": "27", "preset": "fast", "x265-params": "log-level=none"}),
)
MIN_SIZE = 128  # halved it is 64, x265's block: from smaller pictures it corrupts the heap
SHRINKS = (Fraction(4, 3), Fraction(3, 2), Fraction(2))


def _views(rng: Rng, frames: int, turn: float) -> torch.Tensor:  # [T, 2, 3], in canvas units
    """A shaking hand (a few pixels, in ellipses) and a breathing zoom."""
    time = np.arange(frames)
    phase, pace = rng.uniform(0, 2 * math.pi, 3), rng.uniform(0.3, 0.9)
    reach = rng.uniform(0.5, 3.0, 2)
    zoom = 1 + 0.02 * np.sin(pace * time + phase[2])
    angle = turn * (time - frames / 2)
    views = np.zeros((frames, 2, 3), dtype=np.float32)
    views[:, 0, 0] = views[:, 1, 1] = zoom * np.cos(angle)
    views[:, 1, 0] = zoom * np.sin(angle)
    views[:, 0, 1] = -views[:, 1, 0]
    views[:, 0, 2] = reach[0] * np.sin(pace * time + phase[0])
    views[:, 1, 2] = reach[1] * np.cos(pace * time + phase[1])
    return torch.from_numpy(views)


def make_other_clip(rng: Rng, frames: int, size: int) -> Clip:
    """One sharp clip uint8 [T, size, size, 3] of the held-out photographs."""
    canvas = size + size // 2
    back, front = (photograph(rng, "held-out", canvas, canvas) for _ in range(2))
    scene = film(back, _views(rng, frames, turn=0.0), size)
    if rng.random() < 0.5:
        axis = torch.linspace(-1, 1, canvas)
        away = (axis[:, None].square() + axis[None, :].square()).sqrt()
        disc = torch.sigmoid((rng.uniform(0.15, 0.3) - away) * canvas / 3)[None]
        layer = film(torch.cat([front, disc]), _views(rng, frames, turn=0.05), size)
        scene = scene * (1 - layer[:, 3:]) + layer[:, :3] * layer[:, 3:]
    return to_levels(scene)


def damage(rng: Rng, clip: Clip, kind: int) -> Clip:
    """The degraded clip, of `clip`'s shape; `kind` goes round the codecs and the reductions.

    ValueError for clips smaller than MIN_SIZE.
    """
    size = clip.shape[1:3]
    if min(size) < MIN_SIZE:
        raise ValueError(f"clips of {size[0]} x {size[1]} are too small: {MIN_SIZE} at least")
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    smear = F.pad(frames, (1, 1, 0, 0), mode="replicate")  # 3 pixels along the rows
    frames = (smear[..., :-2] + smear[..., 1:-1] + smear[..., 2:]) / 3 if kind % 2 else frames
    shrink = SHRINKS[kind // 2 % len(SHRINKS)]
    small = tuple(2 * round(side / shrink / 2) for side in size)
    frames = F.interpolate(frames, small, mode="area")
    grain = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
    strength = rng.uniform(0, 0.03) * (0.3 + frames.mean(1, keepdim=True))
    stored = encode_and_decode(to_levels(frames + strength * grain), CODECS[kind % len(CODECS)])
    frames = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
    return to_levels(F.interpolate(frames, tuple(size), mode="bicubic", antialias=True))
