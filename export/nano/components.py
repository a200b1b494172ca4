"""A tree of principal components of 8 x 8 blocks: the best linear code the VAE can start from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The tree: `levels[i]` [kept, 4 * before] from 2 x 2 patches, `scale` [16] of the latents.

    A level's rows are orthogonal, each of length one half, so that a flat picture keeps its value
    from level to level instead of doubling. A patch is ordered row, column, channel.
    """

    levels: tuple[Matrix, Matrix, Matrix]
    scale: Matrix


def components(pictures: Matrix, room: tuple[int, int, int], latents: int) -> Components:
    """The tree of `pictures` [N, 3, H, W] in -1..1; `room` is how many each level can keep."""
    levels = []
    x = pictures
    for count in room:
        x = _patches(x)
        basis = _strongest(x, min(count, x.shape[1])) / 2
        x = np.einsum("kc,nchw->nkhw", basis, x)
        levels.append(basis)
    scale = x.std(axis=(0, 2, 3))[:latents]
    return Components((levels[0], levels[1], levels[2]), scale)


def _patches(x: Matrix) -> Matrix:  # [N, C, H, W] -> [N, 4 * C, H/2, W/2]
    parts = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return np.concatenate(parts, axis=1)


def _strongest(x: Matrix, count: int) -> Matrix:  # [N, C, H, W] -> [count, C], orthonormal
    flat = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
    _, vectors = np.linalg.eigh(flat @ flat.T / flat.shape[1])
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T)
