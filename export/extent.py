"""Where a tensor's bytes lie in a file, and reading them without mapping the file into memory.

Mapped pages count as the process's memory until the kernel takes them back; plain reads go
through the page cache and leave only the tensor itself.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from vr_trt.errors import ModelError

REMEDY = "get a good copy with `vr-trt weights pull` (names: `vr-trt weights list`)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """One tensor in a file: `offset` and the storage's end in bytes, `stride` in elements."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None  # None: contiguous

    @property
    def nbytes(self) -> int:
        """Bytes from the tensor's first element to its last."""
        if 0 in self.shape:
            return 0
        if self.stride is None:
            return math.prod(self.shape) * self.dtype.itemsize
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return (reach + 1) * self.dtype.itemsize


def read_extent(path: Path, extent: Extent) -> torch.Tensor:
    """The tensor at `extent` of `path`, contiguous, in memory of its own.

    Raises ModelError if the file has become shorter than it was.
    """
    data = torch.empty(extent.nbytes, dtype=torch.uint8)
    left = data.numpy().data
    with path.open("rb", buffering=0) as file:
        file.seek(extent.offset)
        while left:
            count = file.readinto(left)  # one call reads at most 2 GiB
            if not count:
                raise ModelError(f"{path} ended while a tensor was read from it; {REMEDY}.")
            left = left[count:]
    flat = data.view(extent.dtype)
    if extent.stride is None:
        return flat.reshape(extent.shape)
    return flat.as_strided(extent.shape, extent.stride).contiguous()
