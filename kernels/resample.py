"""Separable resampling as matrices: the picture's size, and the chroma planes' size and siting.

A resize of a plane is `rows @ plane @ cols.T`; here the two matrices are made, on the host, in
float64, and handed over as float32. One cubic (Keys, a = -1/2, also called Catmull-Rom) serves all:

- for the picture it is what PyTorch's antialiased bicubic uses (spec §7.2);
- for chroma it keeps the samples that lie on a luma sample as they are and ramps as straight as
  they are; stretched twofold it is the half-band filter (-1 0 9 16 9 0 -1)/32, which passes 94 % of
  a chroma wave 8 luma samples long where the linear (1 2 1)/4 passes 85 %. The price is a small
  overshoot at hard edges, which the clamp of RGB to 0..1 bounds.

A matrix is dense though it holds few values a row: every backend multiplies matrices fast.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

AxisSiting = Literal["co-sited", "center"]
Array = NDArray[np.float32]

_REACH = 2.0  # the cubic is zero from this distance on, in source samples


def resize_matrix(source: int, target: int, padded: int) -> Array:
    """Return the antialiased bicubic resize of one axis and the edge padding after it.

    Equal to `F.interpolate(mode="bicubic", antialias=True, align_corners=False)`; the last
    `padded - target` rows repeat the last one (spec §7.2).

    Returns [padded, source]; rows sum to 1. Raises ValueError for sizes below 1 or padded < target.
    """
    if min(source, target) < 1 or padded < target:
        raise ValueError(f"cannot resize {source} to {target} samples padded to {padded}")
    scale = source / target
    stretch = max(scale, 1.0)
    matrix = np.zeros((padded, source))
    for i in range(target):
        center = (i + 0.5) * scale - 0.5
        reach = _REACH * stretch
        first = max(int(center + 1.0 - reach), 0)  # int() cuts towards 0 as the reference does
        last = min(int(center + 1.0 + reach), source)
        weights = _cubic((np.arange(first, last) - center) / stretch)
        matrix[i, first:last] = weights / weights.sum()
    matrix[target:] = matrix[target - 1]
    return matrix.astype(np.float32)


def chroma_up_matrix(luma: int, chroma: int, factor: int, siting: AxisSiting) -> Array:
    """Return the interpolation of one axis of a chroma plane at every luma sample.

    `siting` says where chroma sample k lies: on luma sample `factor * k`, or amid its group.
    The picture's edge is repeated. Returns [luma, chroma]; rows sum to 1.
    Raises ValueError if `chroma` is not `luma / factor` rounded up.
    """
    _check_chroma(luma, chroma, factor)
    centers = (np.arange(luma) - _offset(factor, siting)) / factor
    return _repeated_edges(centers, chroma, 1.0)


def chroma_down_matrix(luma: int, chroma: int, factor: int, siting: AxisSiting) -> Array:
    """Return the antialiased reduction of one axis from luma to chroma resolution.

    Arguments as for `chroma_up_matrix`. Returns [chroma, luma]; rows sum to 1.
    """
    _check_chroma(luma, chroma, factor)
    centers = np.arange(chroma) * float(factor) + _offset(factor, siting)
    return _repeated_edges(centers, luma, float(factor))


def _offset(factor: int, siting: AxisSiting) -> float:
    """Luma position of chroma sample 0."""
    return (factor - 1) / 2 if siting == "center" else 0.0


def _check_chroma(luma: int, chroma: int, factor: int) -> None:
    if luma < 1 or factor < 1 or chroma != -(-luma // factor):
        raise ValueError(
            f"{chroma} chroma samples do not belong to {luma} luma samples at factor {factor}"
        )


def _repeated_edges(centers: NDArray[np.floating], source: int, stretch: float) -> Array:
    """Cubic weights of `source` samples at `centers`; what falls outside goes to the edge sample."""
    matrix = np.zeros((len(centers), source))
    reach = int(np.ceil(_REACH * stretch))
    for i, center in enumerate(centers):
        taps = np.arange(int(np.floor(center)) - reach, int(np.floor(center)) + reach + 2)
        weights = _cubic((taps - center) / stretch)
        np.add.at(matrix[i], taps.clip(0, source - 1), weights / weights.sum())
    return matrix.astype(np.float32)


def _cubic(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Keys' cubic with a = -1/2 at distance `x`."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < _REACH, far, 0.0))
