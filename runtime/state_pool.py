"""On the host, the VAE's states are kept in our own memory rather than in the backend's.

Left where a call made them, they would break up the backend's free memory a little differently
after every call, and its peak would creep upwards through a long run. Instead a call writes its next
state into arrays of the pool and gives the old ones back, for the call of the part that follows.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from vr_trt.runtime.session import Array, Tensor

_Kind = tuple[tuple[int, ...], np.dtype[np.generic]]


class StatePool:
    """Arrays by shape and type: as many as were ever in use at the same time."""

    def __init__(self) -> None:
        self._free: dict[_Kind, list[Array]] = {}

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of any content."""
        free = self._free.get((shape, np.dtype(dtype)))
        return free.pop() if free else np.empty(shape, dtype)

    def like(self, value: Array | Tensor) -> Array:
        """An array of any content, of the shape and type of `value`."""
        array = value if isinstance(value, np.ndarray) else value.numpy()
        return self.take(array.shape, array.dtype)

    def copy(self, value: Array | Tensor) -> Array:
        """`value` in memory of the pool."""
        taken = self.like(value)
        np.copyto(taken, value if isinstance(value, np.ndarray) else value.numpy())
        return taken

    def give_back(self, values: Iterable[Array | Tensor]) -> None:
        """Take arrays that nobody reads any more; a backend's own tensors are not kept."""
        for value in values:
            if isinstance(value, np.ndarray):
                self._free.setdefault((value.shape, value.dtype), []).append(value)
