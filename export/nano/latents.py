"""The pool's clips as latents, encoded once, and mosaics of them for the generator.

The generator's windows are up to 15 x 27 tokens, a pool clip has 8 x 8: a mosaic of clips shows it
the far positions, and that what is far away is another picture.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vr_trt.export.nano.pool import Pool
from vr_trt.export.nano.training import device_of
from vr_trt.export.vae import VideoVae, split_moments


@dataclass(frozen=True, slots=True)
class LatentPool:
    """Diffusion latents (scaled) of a pool's clips, each [N, 16, t, h, w] float16."""

    sharp: Tensor
    degraded: Tensor

    def mosaic(
        self, rng: np.random.Generator, frames: int, rows: int, columns: int
    ) -> tuple[Tensor, Tensor]:
        """Sharp and degraded latents [T, rows * h, columns * w, 16] of random clips.

        More frames than a clip has come from going through its later latents again.
        """
        picks = [int(i) for i in rng.integers(len(self.sharp), size=rows * columns)]
        order = [0, *(1 + i % (self.sharp.shape[2] - 1) for i in range(frames - 1))]
        sides = []
        for side in (self.sharp, self.degraded):
            tiles = side[picks][:, :, order].float()  # [rows * columns, 16, T, h, w]
            tiles = tiles.view(rows, columns, *tiles.shape[1:]).permute(3, 0, 4, 1, 5, 2)
            sides.append(tiles.flatten(1, 2).flatten(2, 3))
        return sides[0], sides[1]


def encode_clip(vae: VideoVae, x: Tensor) -> Tensor:
    """Diffusion latents [B, 16, t, h, w] of clips [B, 3, T, H, W] in -1..1, without gradient."""
    with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16):
        mean, _ = split_moments(vae.encode(x))
    return mean.float() * vae.config.scaling


def _fingerprint(vae: VideoVae) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(vae.encoder.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def encode_pool(vae: VideoVae, pool: Pool, path: Path) -> LatentPool:
    """The latents of all clips, from `path` if they are this encoder's, else made and kept there.

    Each clip is turned its own way (by its number), so that the eight ways all occur.
    """
    fingerprint = _fingerprint(vae)
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["encoder"] == fingerprint and len(kept["sharp"]) == len(pool.sharp):
            return LatentPool(kept["sharp"], kept["degraded"])
    device = device_of(vae)
    sides = []
    for source in (pool.sharp, pool.degraded):
        parts = [
            encode_clip(vae, turned(source, index)[None].to(device)).half().cpu()
            for index in range(len(source))
        ]
        sides.append(torch.cat(parts))
    partial = path.with_suffix(".partial")
    torch.save({"encoder": fingerprint, "sharp": sides[0], "degraded": sides[1]}, partial)
    os.replace(partial, path)
    return LatentPool(sides[0], sides[1])


def turned(clips: NDArray[np.uint8], index: int) -> Tensor:  # [N, T, H, W, 3] -> [3, T, H, W]
    """Clip `index` in -1..1, flipped and turned as its number says."""
    clip = torch.from_numpy(clips[index].copy()).permute(3, 0, 1, 2).float() / 127.5 - 1
    clip = clip.flip([axis for axis in (2, 3) if index >> (axis - 2) & 1])
    return clip.transpose(2, 3) if index & 4 else clip
