"""A tree of principal components of 8 x 8 x 4 blocks: the best linear code the VAE can start from."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Place = tuple[int, int, int]  # row, column, frame of a patch

# Patches of 2 x 2 pixels at the first level, of 2 x 2 pixels x 2 frames at the other two.
PLACES: tuple[tuple[Place, ...], ...] = tuple(
    tuple(product((0, 1), (0, 1), range(frames))) for frames in (1, 2, 2)
)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The tree: `levels[i]` [kept, places * before] from patches, `scale` [latents] of the result.

    A level's rows are orthogonal, and so long that a flat picture keeps its value from level to
    level. A patch is ordered row, column, frame, channel.
    """

    levels: tuple[Matrix, ...]
    scale: Matrix


def components(clips: Matrix, room: tuple[int, ...], latents: int) -> Components:
    """The tree of `clips` [N, 3, 4n, H, W] in -1..1; `room` is how many each level can keep."""
    levels = []
    x = clips
    for places, count in zip(PLACES, room, strict=True):
        x = _patches(x, places)
        basis = _strongest(x, min(count, x.shape[1])) / np.float32(len(places) ** 0.5)
        x = np.einsum("kc,ncthw->nkthw", basis, x, optimize=True)
        levels.append(basis)
    scale = x.std(axis=(0, 2, 3, 4))[:latents]
    return Components(tuple(levels), scale)


def _patches(x: Matrix, places: tuple[Place, ...]) -> Matrix:
    """[N, C, T, H, W] to [N, places * C, T or T/2, H/2, W/2]."""
    frames = len(places) // 4
    parts = [x[:, :, frame::frames, row::2, column::2] for row, column, frame in places]
    return np.concatenate(parts, axis=1)


def _strongest(x: Matrix, count: int) -> Matrix:  # [N, C, ...] -> [count, C], orthonormal
    flat = x.swapaxes(0, 1).reshape(x.shape[1], -1)
    _, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64) / flat.shape[1])
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T.astype(np.float32))
