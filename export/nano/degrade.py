"""What time and phones do to a clip: blur, lost resolution, noise, real compression, colour drift.

Resolution is lost and given back, so a degraded clip has the sharp one's shape: the tool resizes
its input before the network sees it.
"""

import io
import math
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator as Rng

from vr_trt.export.nano.data import Clip

Kernel = Literal["bicubic", "bilinear", "aliased"]  # aliased: bilinear without a low-pass before
KERNELS: tuple[Kernel, ...] = ("bicubic", "bilinear", "aliased")


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """What happens to one clip; sigma in pixels of the target, noise in 0..1, crf as the encoder's.

    By default nothing does.
    """

    blur: float = 0.0
    shrink: float = 1.0
    kernel: Kernel = "bicubic"
    halo: float = 0.0  # sharpening before it was stored, as cameras and old transfers do
    noise: float = 0.0
    chroma_noise: float = 0.0
    codec: str = "none"  # or "h264", "vp9", "mjpeg"
    quality: int = 0  # crf, or mjpeg quantiser scale
    gain: float = 1.0
    offset: float = 0.0
    seed: int


HALO_SIGMA = 1.2
CLEAN_SHARE, LIGHT_SHARE = 0.04, 0.36
# Of each encoder, the qualities of light damage and of any.
_QUALITIES = {
    "h264": ((16, 24), (17, 37)),
    "vp9": ((16, 30), (18, 48)),
    "mjpeg": ((2, 5), (2, 14)),
    "none": ((0, 1), (0, 1)),
}


def draw(rng: Rng) -> Degradation:
    """What training draws: now and then nothing, often light damage, else any."""
    choice = rng.random()
    if choice < CLEAN_SHARE:
        return Degradation(seed=int(rng.integers(2**31)))
    return draw_light(rng) if choice < CLEAN_SHARE + LIGHT_SHARE else draw_any(rng)


def draw_light(rng: Rng) -> Degradation:
    """A random degradation of a clip that is still good."""
    return _drawn(rng, light=True)


def draw_any(rng: Rng) -> Degradation:
    """A random degradation, from hardly any to bad."""
    return _drawn(rng, light=False)


def _drawn(rng: Rng, *, light: bool) -> Degradation:
    worst = 0.4 if light else 1.0
    codec = str(rng.choice(list(_QUALITIES), p=[0.5, 0.15, 0.15, 0.2]))
    noisy = rng.random() < 0.6
    return Degradation(
        blur=worst * float(rng.uniform(0.0, 1.6)) if rng.random() < 0.7 else 0.0,
        shrink=math.exp(worst * rng.uniform(0, math.log(4.0))) if rng.random() < 0.9 else 1.0,
        kernel=KERNELS[int(rng.choice(3, p=[0.6, 0.25, 0.15]))],
        halo=float(rng.uniform(0.0, 0.8)) if rng.random() < 0.2 else 0.0,
        noise=worst * float(rng.uniform(0.0, 0.05)) if noisy else 0.0,
        chroma_noise=worst * float(rng.uniform(0.0, 0.03)) if noisy else 0.0,
        codec=codec,
        quality=int(rng.integers(*_QUALITIES[codec][0 if light else 1])),
        gain=float(rng.normal(1.0, 0.015 * worst)),
        offset=float(rng.normal(0.0, 0.006 * worst)),
        seed=int(rng.integers(2**31)),
    )


def _blur(frames: torch.Tensor, sigma: float) -> torch.Tensor:  # [T, 3, H, W]
    if sigma < 0.2:
        return frames
    radius = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).repeat(3, 1)
    padded = F.pad(frames, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, taps[:, None, :, None], groups=3)
    return F.conv2d(rows, taps[:, None, None, :], groups=3)


def _add_noise(frames: torch.Tensor, how: Degradation) -> torch.Tensor:  # [T, 3, H, W]
    rng = np.random.default_rng(how.seed)
    count, _, height, width = frames.shape
    grain = rng.standard_normal((count, 1, height, width), dtype=np.float32)
    coarse = rng.standard_normal((count, 3, -(-height // 2), -(-width // 2)), dtype=np.float32)
    blotches = F.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")
    return frames + how.noise * torch.from_numpy(grain) + how.chroma_noise * blotches


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder of FFmpeg's, its pixel format and its options."""

    name: str
    pix_fmt: str
    options: dict[str, str]


def compress(clip: Clip, codec: str, quality: int) -> Clip:
    """The clip after one real encode and decode (4:2:0); `none` gives it back."""
    if codec == "none":
        return clip
    if codec == "h264":
        how = Codec(codec, "yuv420p", {"crf": str(quality), "preset": "veryfast"})
    elif codec == "vp9":
        speed = {"deadline": "realtime", "cpu-used": "6"}
        how = Codec("libvpx-vp9", "yuv420p", {"crf": str(quality), "b": "0", **speed})
    else:
        how = Codec(codec, "yuvj420p", {"qmin": str(quality), "qmax": str(quality)})
    return encode_and_decode(clip, how)


def encode_and_decode(clip: Clip, codec: Codec) -> Clip:
    """The clip after one encode and decode by one thread."""
    buffer = io.BytesIO()
    rows, columns = clip.shape[1:3]
    # Whole macroblocks, and some of them: x264's answer to tiny pictures differs from run to run.
    below, right = (max(48, side + -side % 16) - side for side in (rows, columns))
    clip = np.pad(clip, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    height, width = clip.shape[1:3]
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec.name, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = codec.pix_fmt
        stream.options = {**codec.options, "threads": "1"}
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(decoded).astype(np.uint8)[:, :rows, :columns]


def degrade(clip: Clip, how: Degradation) -> Clip:
    """The degraded clip, of the same shape and type as `clip` (uint8 [T, H, W, 3])."""
    size = clip.shape[1:3]
    small = tuple(max(16, 2 * round(side / how.shrink / 2)) for side in size)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    frames = _blur(frames, how.blur) * how.gain + how.offset
    if small != size:
        mode = "bicubic" if how.kernel == "bicubic" else "bilinear"
        frames = F.interpolate(frames, small, mode=mode, antialias=how.kernel != "aliased")
    frames = frames + how.halo * (frames - _blur(frames, HALO_SIGMA))
    frames = _add_noise(frames, how)
    stored = compress(to_levels(frames), how.codec, how.quality)
    if small == size:
        return stored
    frames = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
    return to_levels(F.interpolate(frames, tuple(size), mode="bicubic", antialias=True))


def to_levels(frames: torch.Tensor) -> Clip:
    """[T, 3, H, W] in 0..1 to uint8 [T, H, W, 3]."""
    levels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())
