"""The nonlinearity of an MLP in one pass: SwiGLU (3B) or GELU (7B), with fp8 codes where wanted.

SwiGLU reads the result of one linear of twice the width, gate first, as folding makes it. Source:
spec §4.
"""

from typing import TYPE_CHECKING, Literal

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_float, check_tensor
from vr_trt.kernels.fp8 import check_scale, quantised, quantised_reference
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["swiglu", "gelu"]


def activation_reference(
    hidden: "Tensor",  # [N, 2 M] for swiglu, [N, M] for gelu
    kind: Activation,
    scale: "Tensor | None" = None,  # [1] or [N]
) -> "Tensor":  # [N, M]
    """silu(gate) * value, or GELU by tanh, in fp32 and rounded once; with `scale` to fp8."""
    import torch
    from torch.nn import functional as F

    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    if kind == "swiglu":
        gate, value = wide.chunk(2, -1)
        out = F.silu(gate) * value
    else:
        out = F.gelu(wide, approximate="tanh")
    return out.to(hidden.dtype) if scale is None else quantised_reference(out, scale)


@triton.jit
def activation_kernel(  # type: ignore[no-untyped-def]
    hidden,  # [rows, width * (2 if SWIGLU else 1)], contiguous
    scale,  # [1] or [rows] fp32; not read unless QUANTISES
    out,  # [rows, width]
    width,
    SWIGLU: tl.constexpr,
    QUANTISES: tl.constexpr,
    BY_ROW: tl.constexpr,  # whether rows have scales of their own
    BLOCK: tl.constexpr,
):
    """Each program: BLOCK columns of one row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    here = hidden + row * width * (2 if SWIGLU else 1) + column
    x = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    if SWIGLU:
        y = x * tl.sigmoid(x) * tl.load(here + width, mask=inside, other=0.0).to(tl.float32)
    else:  # tanh(z) = 2 sigmoid(2 z) - 1, so that half of 1 + tanh is a sigmoid
        z = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # 2 sqrt(2 / pi)
        y = x * tl.sigmoid(z)
    there = out + row * width + column
    if QUANTISES:
        step = tl.load(scale + row * BY_ROW)
        tl.store(there, quantised(y, step, out.dtype.element_ty), mask=inside)
    else:
        tl.store(there, y.to(out.dtype.element_ty), mask=inside)


def activate(
    hidden: "Tensor",  # [N, 2 M] or [N, M] fp16, bf16 or fp32, contiguous
    kind: Activation,
    scale: "Tensor | None" = None,
    out: "Tensor | None" = None,
) -> "Tensor":
    """`activation_reference` by the kernel, into `out` [N, M] where given.

    TypeError or ValueError for tensors that the kernel cannot read.
    """
    import torch

    parts = 2 if kind == "swiglu" else 1
    check_float("activate", hidden.dtype)
    if hidden.ndim != 2 or hidden.shape[1] % parts:
        raise ValueError(f"activate takes [N, {parts} M] for {kind}, not {tuple(hidden.shape)}")
    shape = (hidden.shape[0], hidden.shape[1] // parts)
    dtype = hidden.dtype if scale is None else torch.float8_e4m3fn
    out = hidden.new_empty(shape, dtype=dtype) if out is None else out
    check_tensor("activate: hidden", hidden, hidden.shape, hidden.dtype, hidden.device)
    check_tensor("activate: out", out, shape, dtype, hidden.device)
    if scale is not None:
        check_scale("activate", scale, hidden)
    if out.numel():
        sizes = tuned("activation", capability_of(hidden.device))
        activation_kernel[(shape[0], triton.cdiv(shape[1], sizes["BLOCK"]))](
            hidden, hidden if scale is None else scale, out, shape[1],
            SWIGLU=kind == "swiglu", QUANTISES=scale is not None,
            BY_ROW=int(scale is not None and scale.numel() > 1), **sizes,
        )  # fmt: skip
    return out
