"""What tells restored frames apart: sums of the rows of their planes, hashed.

A GPU makes the sums itself, so that frames which stay on the card for its encoder are told apart by
some kilobytes, the same that the host makes of planes.
"""

import hashlib
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.frames import Frame

_FACTOR = 0x9E3779B97F4A7C15  # odd, and 5 modulo 8: 2**62 powers before they repeat
_AT_A_TIME = 1 << 18  # code values that are widened to 64 bits


@runtime_checkable
class RowsOnCard(Protocol):
    """A picture on a card, of which the rows' sums can be had alone."""

    def row_sums(self) -> NDArray[np.int64]:
        """Those of y, u and v, one after the other; waits for the GPU."""


def frame_digest(frame: Frame) -> str:
    """A short hash of the planes' code values."""
    if isinstance(frame.content, RowsOnCard):
        sums = frame.content.row_sums()
    else:
        sums = np.concatenate([_row_sums(plane) for plane in frame.planes])
    return hashlib.blake2b(sums.astype("<i8").tobytes(), digest_size=8).hexdigest()


@cache
def weights(columns: int) -> NDArray[np.int64]:
    """What the columns count for [columns], odd numbers: no change of a single value is lost."""
    powers = np.cumprod(np.full(columns, _FACTOR, np.uint64))  # modulo 2**64
    return powers.view(np.int64)


def _row_sums(plane: NDArray[Any]) -> NDArray[np.int64]:
    """Sums of the rows by the weights, modulo 2**64."""
    factors, step = weights(plane.shape[1]), max(1, _AT_A_TIME // plane.shape[1])
    parts = [plane[at : at + step].astype(np.int64) @ factors for at in range(0, len(plane), step)]
    return np.concatenate(parts)
