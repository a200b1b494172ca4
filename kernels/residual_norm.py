"""What lies between two linears of a block: gate, residual, RMSNorm, and fp8 codes where wanted.

A library's product ends with its bias. All that follows is one pass over memory here: the residual
stream x and the linear's result y are read once, the new x and its norm written once. Source: spec §4.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_float, check_tensor
from vr_trt.kernels.fp8 import check_scale, quantised, quantised_reference
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EPS = 1e-5
_MOST_COLUMNS = 16384  # a row stays in registers


def residual_norm_reference(
    x: "Tensor",  # [N, C]
    y: "Tensor | None" = None,  # [N, C]
    gate: "Tensor | None" = None,  # [C]
    scale: "Tensor | None" = None,  # [1] or [N]
    eps: float = EPS,
) -> "tuple[Tensor, Tensor]":
    """x + y * gate [N, C], and its norm [N, C] in x's dtype or, with `scale`, in fp8.

    In fp32 or wider, each result rounded once; the norm is that of the rounded sum.
    """
    import torch

    wide = torch.promote_types(x.dtype, torch.float32)
    if y is not None:
        added = y.to(wide) if gate is None else y.to(wide) * gate.to(wide)
        x = (x.to(wide) + added).to(x.dtype)
    normed = x.to(wide) * torch.rsqrt(x.to(wide).square().mean(-1, keepdim=True) + eps)
    return x, normed.to(x.dtype) if scale is None else quantised_reference(normed, scale)


@triton.jit
def residual_norm_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows, columns], contiguous, and so the others
    y,  # or x, where there is nothing to add
    gate,  # [columns], or x
    scale,  # [1] or [rows] fp32, or x
    x_out,
    normed,
    rows,
    columns,
    EPS: tl.constexpr,
    ADDS: tl.constexpr,
    GATED: tl.constexpr,
    QUANTISES: tl.constexpr,
    BY_ROW: tl.constexpr,  # whether rows have scales of their own
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program: ROWS rows, whole, in registers."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < columns)
    at = row.to(tl.int64) * columns + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            added *= tl.load(gate + column, mask=column < columns, other=0.0).to(tl.float32)
        rounded = (value + added).to(x_out.dtype.element_ty)
        tl.store(x_out + at, rounded, mask=inside)
        value = rounded.to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 1)[:, None] / columns + EPS)
    if QUANTISES:
        step = tl.load(scale + row, mask=row < rows, other=1.0) if BY_ROW else tl.load(scale)
        out = quantised(value, step, normed.dtype.element_ty)
    else:
        out = value.to(normed.dtype.element_ty)
    tl.store(normed + at, out, mask=inside)


def residual_norm(
    x: "Tensor",  # [N, C] fp16, bf16 or fp32; becomes x + y * gate, in place
    y: "Tensor | None" = None,
    gate: "Tensor | None" = None,
    scale: "Tensor | None" = None,
    eps: float = EPS,
    out: "Tensor | None" = None,
) -> "Tensor":
    """The norm of `residual_norm_reference` by the kernel, into `out` [N, C] where given.

    TypeError or ValueError for tensors that the kernel cannot read.
    """
    import torch

    dtype = x.dtype if scale is None else torch.float8_e4m3fn
    out = torch.empty_like(x, dtype=dtype) if out is None else out
    _check(x, y, gate, scale, out, dtype)
    rows, columns = x.shape
    if x.numel():
        sizes = tuned("residual_norm", capability_of(x.device))
        residual_norm_kernel[(triton.cdiv(rows, sizes["ROWS"]),)](
            x, x if y is None else y, x if gate is None else gate, x if scale is None else scale,
            x, out, rows, columns,
            EPS=eps, ADDS=y is not None, GATED=gate is not None, QUANTISES=scale is not None,
            BY_ROW=scale is not None and scale.numel() > 1,
            BLOCK=triton.next_power_of_2(columns), **sizes,
        )  # fmt: skip
    return out


def _check(
    x: "Tensor", y: "Tensor | None", gate: "Tensor | None", scale: "Tensor | None",
    out: "Tensor", dtype: "torch.dtype",
) -> None:  # fmt: skip
    check_float("residual_norm", x.dtype)
    if x.ndim != 2 or not 0 < x.shape[1] <= _MOST_COLUMNS:
        raise ValueError(
            f"residual_norm takes [N, C] of 1 to {_MOST_COLUMNS} columns, not {tuple(x.shape)}"
        )
    if gate is not None and y is None:
        raise ValueError("residual_norm: a gate without anything to add")
    for name, tensor, shape, kind in (
        ("x", x, x.shape, x.dtype),
        ("y", y, x.shape, x.dtype),
        ("gate", gate, x.shape[1:], x.dtype),
        ("out", out, x.shape, dtype),
    ):
        if tensor is not None:
            check_tensor(f"residual_norm: {name}", tensor, shape, kind, x.device)
    if scale is not None:
        check_scale("residual_norm", scale, x)
