"""Root-mean-square normalisation without weights. Source: network spec §4.2.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launch from Python.
torch is imported by the functions that take tensors, so that the kernel also compiles without it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_float, check_tensor

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-5
_LARGEST_TILE = 4096  # columns that one program reads at a time
_TILE_ELEMENTS = 2048  # of a program, where rows are short enough to share one
_ELEMENTS_PER_WARP = 512


def rms_norm_reference(x: "Tensor", eps: float = EPS) -> "Tensor":  # [N, C]
    """x / sqrt(mean over C of x² + eps), computed in fp32 or wider and rounded once to x's dtype."""
    import torch

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


@triton.jit
def rms_norm_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows, columns], contiguous
    rows,
    columns,
    y,  # like x
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program normalises ROWS rows, BLOCK columns at a time: one pass to sum, one to scale."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    start = row.to(tl.int64) * columns
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in range(0, columns, BLOCK):
        inside = (row < rows) & (first + column < columns)
        value = tl.load(x + start + first + column, mask=inside, other=0.0).to(tl.float32)
        squares += value * value
    scale = tl.rsqrt(tl.sum(squares, 1)[:, None] / columns + EPS)
    for first in range(0, columns, BLOCK):
        inside = (row < rows) & (first + column < columns)
        value = tl.load(x + start + first + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + start + first + column, (value * scale).to(y.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True)
class RmsNormTile:
    """How the work is cut: the rows and columns that one program reads at a time."""

    rows: int
    columns: int

    @property
    def warps(self) -> int:
        return max(1, min(8, self.rows * self.columns // _ELEMENTS_PER_WARP))

    @property
    def constants(self) -> dict[str, Any]:
        """The kernel's compile-time arguments, and its warps."""
        return {"ROWS": self.rows, "BLOCK": self.columns, "num_warps": self.warps}


def rms_norm_tile(columns: int) -> RmsNormTile:
    """The tile for rows of `columns` elements."""
    width = min(triton.next_power_of_2(columns), _LARGEST_TILE)
    return RmsNormTile(rows=max(1, _TILE_ELEMENTS // width), columns=width)


def rms_norm(
    x: "Tensor",  # [N, C] fp16, bf16 or fp32, contiguous
    eps: float = EPS,
    out: "Tensor | None" = None,
) -> "Tensor":
    """`rms_norm_reference` by the kernel, into `out` where given, which may be `x` itself.

    TypeError or ValueError for a tensor that the kernel cannot read.
    """
    import torch

    out = torch.empty_like(x) if out is None else out
    check_float("rms_norm", x.dtype)
    if x.ndim != 2:
        raise ValueError(f"rms_norm takes [N, C], not {tuple(x.shape)}")
    check_tensor("rms_norm: x", x, x.shape, x.dtype, x.device)
    check_tensor("rms_norm: out", out, x.shape, x.dtype, x.device)
    rows, columns = x.shape
    if x.numel():
        tile = rms_norm_tile(columns)
        grid = (triton.cdiv(rows, tile.rows),)
        rms_norm_kernel[grid](x, rows, columns, out, EPS=eps, **tile.constants)
    return out
