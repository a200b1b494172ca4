"""The wavelet colour correction: restored - low(restored - reference). Source: network spec §7.9.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launches from Python.

`low` is five blurs by [1, 2, 1]/4 in both directions, dilated 1 to 16, edges repeated before each;
the first few of them where fewer `levels` are asked for: finer detail alone is the restored one's.
Rows and columns do not mix, and the five blurs of a direction are one filter of 63 taps: a tent
away from the edges, so `low` is two passes. Both run the same kernel, which filters the first axis
and writes the result transposed, so that reads and writes are dense in either direction. For a
picture of N samples the passes read 2N restored and reference, write and read N in fp32, read N
restored again and write N.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.bands import row_blocks, smoothing_bands
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DILATIONS = (1, 2, 4, 8, 16)


def wavelet_reference(
    restored: "Tensor",  # [..., H, W]
    reference: "Tensor",
    levels: int = len(_DILATIONS),
) -> "Tensor":  # [..., H, W] fp32
    """The same, blur by blur, the first `levels` of them."""
    import torch

    low = restored.float() - reference.float()
    for axis in (-2, -1):
        index = torch.arange(low.shape[axis], device=low.device)
        for dilation in _DILATIONS[:levels]:
            before = low.index_select(axis, (index - dilation).clamp(min=0))
            after = low.index_select(axis, (index + dilation).clamp(max=len(index) - 1))
            low = 0.5 * low + 0.25 * (before + after)
    return restored.float() - low


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
        levels: int = len(_DILATIONS),
    ) -> None:
        """Put the filters of H rows and W columns on the device; ValueError for other `levels`."""
        import torch

        if not 1 <= levels <= len(_DILATIONS):
            raise ValueError(f"the wavelet has 1 to {len(_DILATIONS)} levels, not {levels}")

        self._size = height, width
        self._options = options or tuned("wavelet", capability_of(torch.device(device)))
        self._filters = []
        for size in self._size:
            blocks = row_blocks(smoothing_bands(size, _DILATIONS[:levels]), self._options["ROWS"])
            tables = (torch.from_numpy(a).to(device) for a in (blocks.first, blocks.weights))
            self._filters.append((blocks.span, blocks.blocks, *tables))

    def __call__(
        self,
        restored: "Tensor",  # [3, F, >= H, >= W] fp16, bf16 or fp32; its top left is the picture
        reference: "Tensor",  # [3, F, >= H, >= W]
        out: "Tensor",  # [3, F, H, W] fp32, contiguous
        room: "Tensor",  # [3, F, W, H] fp32, contiguous: what is between the passes
    ) -> "Tensor":
        """Fill `out` and return it; TypeError or ValueError for tensors that do not fit."""
        height, width = self._size
        frames = out.shape[1]
        for name, picture in (("restored", restored), ("reference", reference)):
            _check_picture(name, picture, (3, frames, height, width))
        for name, dense, size in (
            ("out", out, (3, frames, height, width)),
            ("room", room, (3, frames, width, height)),
        ):
            if tuple(dense.shape) != size or not dense.is_contiguous() or dense.element_size() != 4:
                raise ValueError(f"{name} is {tuple(dense.shape)} {dense.dtype}, not {size} fp32")
        if frames:
            self._smooth(0, (restored, reference, reference), room, DIFFERENCE=True)
            self._smooth(1, (room, room, restored), out, CORRECTION=True)
        return out

    def _smooth(
        self, axis: int, pictures: "tuple[Tensor, ...]", out: "Tensor", **flags: bool
    ) -> None:
        span, blocks, first, weights = self._filters[axis]
        rows, columns = self._size[axis], self._size[1 - axis]
        grid = (blocks, triton.cdiv(columns, self._options["COLUMNS"]), 3 * out.shape[1])
        smooth_kernel[grid](
            *(part for picture in pictures for part in (picture, *picture.stride()[:3])),
            *(first, weights, out, rows, columns),
            **({"DIFFERENCE": False, "CORRECTION": False} | flags),
            SPAN=span,
            **self._options,
        )


def _check_picture(name: str, picture: "Tensor", size: tuple[int, ...]) -> None:
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[:2] != size[:2] or shape[2] < size[2] or shape[3] < size[3]:
        raise ValueError(f"{name} is {shape}, not at least {size}")
    if not picture.is_floating_point() or picture.stride(3) != 1:
        raise TypeError(f"{name} must be dense rows of floats, not {picture.dtype}")
