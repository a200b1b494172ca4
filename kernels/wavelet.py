"""The wavelet colour correction: restored - low(restored - reference). Source: network spec §7.9.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launches from Python.

`low` is five blurs by [1, 2, 1]/4 in both directions, dilated 1 to 16, edges repeated before each.
A model that makes only a share of some bands (`kernels.detail`) takes back the rest: wherever its
share falls from one band to the next, that much of what the blurs up to there leave.

Rows and columns do not mix, and the five blurs of a direction are one filter of 63 taps, a tent away
from the edges; so `low` is two passes. Both run the same kernel, which filters the first axis and
writes the result transposed, so that reads and writes are dense in either direction. For a picture of
N samples the passes read 2N samples (restored and reference), write and read N in fp32, read N
(restored) again and write N.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import triton
import triton.language as tl

from vr_trt.kernels.bands import row_blocks, smoothing_bands
from vr_trt.kernels.checks import check_picture, check_tensor
from vr_trt.kernels.detail import BANDS, PUBLISHED_DETAIL, wavelet_name
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DILATIONS = tuple(2**band for band in range(BANDS))


@dataclass(frozen=True, slots=True, eq=False)
class _Filter:
    """A filter along one axis, on the device."""

    span: int
    blocks: int
    first: "Tensor"  # [blocks]
    weights: "Tensor"  # [blocks, span, rows]


def wavelet_reference(
    restored: "Tensor",  # [..., H, W]
    reference: "Tensor",
    detail: Sequence[float] = PUBLISHED_DETAIL,
) -> "Tensor":  # [..., H, W] fp32
    """The correction band by band: to the reference is added a share of the difference's band."""
    import torch

    out, above = reference.float(), restored.float() - reference.float()
    for dilation, share in zip(_DILATIONS, detail, strict=False):
        below = above
        for axis in (-2, -1):
            index = torch.arange(below.shape[axis], device=below.device)
            before = below.index_select(axis, (index - dilation).clamp(min=0))
            after = below.index_select(axis, (index + dilation).clamp(max=len(index) - 1))
            below = 0.5 * below + 0.25 * (before + after)
        out, above = out + share * (above - below), below
    return out


@triton.jit
def smooth_kernel(  # type: ignore[no-untyped-def]
    x, x_channel, x_frame, x_row,  # [3, F, rows, columns], columns side by side
    minus, minus_channel, minus_frame, minus_row,  # like x; read where DIFFERENCE
    base, base_channel, base_frame, base_row,  # [3, F, columns, rows]; read where CORRECTION
    first, weights,  # [blocks], [blocks, SPAN, ROWS]
    out,  # [3, F, columns, rows] fp32, contiguous
    rows, columns,
    DIFFERENCE: tl.constexpr,  # filter x - minus
    CORRECTION: tl.constexpr,  # write base - filtered
    SPAN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program filters ROWS x COLUMNS samples of one channel along the rows' axis."""
    block = tl.program_id(0)
    frames = tl.num_programs(2) // 3
    channel = (tl.program_id(2) // frames).to(tl.int64)
    frame = (tl.program_id(2) % frames).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    inside = column < columns
    line = tl.load(first + block)
    x += channel * x_channel + frame * x_frame
    minus += channel * minus_channel + frame * minus_frame
    low = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(SPAN):
        value = tl.load(x + (line + step) * x_row + column, mask=inside, other=0.0).to(tl.float32)
        if DIFFERENCE:
            value -= tl.load(minus + (line + step) * minus_row + column, mask=inside, other=0.0).to(
                tl.float32
            )
        weight = tl.load(weights + (block * SPAN + step) * ROWS + row)
        low += weight[:, None] * value[None, :]
    row = (block * ROWS + row)[:, None]
    here = inside[None, :] & (row < rows)
    if CORRECTION:
        base += channel * base_channel + frame * base_frame
        kept = tl.load(base + column[None, :] * base_row + row, mask=here, other=0.0)
        low = kept.to(tl.float32) - low
    out += (channel * frames + frame) * rows * columns
    tl.store(out + column[None, :] * rows + row, low, mask=here)


class Wavelet:
    """`wavelet_reference` by the kernel, for pictures of one size."""

    def __init__(
        self,
        height: int,
        width: int,
        device: "torch.device | str",
        options: Mapping[str, int] | None = None,  # as in tuned/wavelet.toml
        detail: Sequence[float] = PUBLISHED_DETAIL,
    ) -> None:
        """Put the filters of H rows and W columns on the device; ValueError for other `detail`."""
        import torch

        wavelet_name(detail)
        self._size = height, width
        self._device = torch.device(device)
        self._options = options or tuned("wavelet", capability_of(self._device))
        falls = enumerate(pairwise((1.0, *detail, 0.0)))
        self._filters = [
            (self._filter(height, blurs), self._filter(width, blurs, share - next_share))
            for blurs, (share, next_share) in falls
            if share != next_share
        ]

    def _filter(self, size: int, blurs: int, share: float = 1.0) -> _Filter:
        """`share` times the first `blurs` blurs of an axis; of none it is that share itself."""
        import torch

        blocks = row_blocks(smoothing_bands(size, _DILATIONS[:blurs]), self._options["ROWS"])
        first, weights = blocks.first, np.float32(share) * blocks.weights
        tables = (torch.from_numpy(table).to(self._device) for table in (first, weights))
        return _Filter(blocks.span, blocks.blocks, *tables)

    def __call__(
        self,
        restored: "Tensor",  # [3, F, >= H, >= W] fp16, bf16 or fp32; its top left is the picture
        reference: "Tensor",  # [3, F, >= H, >= W]
        out: "Tensor",  # [3, F, H, W] fp32, contiguous
        room: "Tensor",  # [3, F, W, H] fp32, contiguous: what is between the passes
    ) -> "Tensor":
        """Fill `out` and return it; TypeError or ValueError for tensors that do not fit."""
        import torch

        (height, width), frames, device = self._size, out.shape[1], restored.device
        check_picture("wavelet: restored", restored, frames, height, width)
        check_picture("wavelet: reference", reference, frames, height, width)
        check_tensor("wavelet: out", out, (3, frames, height, width), torch.float32, device)
        check_tensor("wavelet: room", room, (3, frames, width, height), torch.float32, device)
        if frames:
            base = restored
            for rows, columns in self._filters:
                self._smooth(0, rows, (restored, reference, reference), room, DIFFERENCE=True)
                # A program reads of `base` just what it writes, so that may be the same memory.
                self._smooth(1, columns, (room, room, base), out, CORRECTION=True)
                base = out
        return out

    def _smooth(
        self,
        axis: int,
        by: _Filter,
        pictures: "tuple[Tensor, ...]",
        out: "Tensor",
        **flags: bool,
    ) -> None:
        rows, columns = self._size[axis], self._size[1 - axis]
        grid = (by.blocks, triton.cdiv(columns, self._options["COLUMNS"]), 3 * out.shape[1])
        smooth_kernel[grid](
            *(part for picture in pictures for part in (picture, *picture.stride()[:3])),
            *(by.first, by.weights, out, rows, columns),
            **({"DIFFERENCE": False, "CORRECTION": False} | flags),
            SPAN=by.span,
            **self._options,
        )
