"""A linear in eight bits: E4M3 x E4M3 with sums in fp32, scales and bias on the way out.

    y[m, n] = (sum over k of x[m, k] weight[n, k]) * x_scale[m] * weight_scale[n] + bias[n]

Each row has a scale because video and text share a product where they share weights, and were
calibrated apart; each column because the channels of a weight differ. Both scales are applied to the
fp32 sum, which is rounded once: no 16-bit result can overflow before it is scaled, and the passes over
memory that a library's product leaves to its caller are saved.

**Sums.** While it adds products of E4M3, sm_90 keeps fewer bits than fp32 has (reported elsewhere:
about 14). After SUM_K elements of K a partial sum is added to the whole one in full, unless SUM_K
is more than a step has.

**Block sizes.** A step moves (M + N) K bytes from L2 for 2 M N K operations: 128 FLOP per byte with
128 x 128, which at 7 TB/s of L2 allows 900 TFLOP/s; a second set of accumulators for the partial
sums leaves no registers for more. Without it 256 x 128 is possible: a candidate for tuning.

Dimension key: M rows (tokens), N output channels, K input channels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_float, check_tensor
from vr_trt.kernels.fp8 import FIRST_CHIP
from vr_trt.kernels.tuning import COPY_ENGINE, capability_of, tuned

if TYPE_CHECKING:
    from torch import Tensor

CELL = 16  # bytes: rows of codes begin where the copy engine can read


def fp8_linear_reference(
    x: "Tensor",  # [M, K] float8_e4m3fn
    weight: "Tensor",  # [N, K] float8_e4m3fn
    x_scale: "Tensor",  # [M] fp32
    weight_scale: "Tensor",  # [N] fp32
    bias: "Tensor",  # [N]
) -> "Tensor":  # [M, N], in bias's dtype
    """The same in fp32, rounded once."""
    product = x.float() @ weight.float().t()
    y = product * x_scale[:, None] * weight_scale[None, :] + bias.float()
    return y.to(bias.dtype)


@triton.jit
def fp8_linear_kernel(  # type: ignore[no-untyped-def]
    x,  # [M, K], or its descriptor
    weight,  # [N, K], or its descriptor
    x_scale,  # [M] fp32
    weight_scale,  # [N] fp32
    bias,  # [N]
    y,  # [M, N], contiguous
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,  # tiles of rows whose programs follow each other: they share weights
    SUM_K: tl.constexpr,
):
    """Each program: BLOCK_M rows, BLOCK_N channels."""
    first_m, first_n = _tile(M, N, BLOCK_M, BLOCK_N, GROUP)
    m, n = first_m + tl.arange(0, BLOCK_M), first_n + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        if DESCRIPTORS:  # zero outside
            a = x.load([first_m, first])
            b = weight.load([first_n, first])
        else:
            a = _rows(x, m, M, first + k, K, BLOCK_K)
            b = _rows(weight, n, N, first + k, K, BLOCK_K)
        if SUM_K <= BLOCK_K:
            acc = tl.dot(a, b.T, acc, max_num_imprecise_acc=SUM_K)
        else:
            acc = tl.dot(a, b.T, acc)
    inside_m, inside_n = m < M, n < N
    acc *= tl.load(x_scale + m, inside_m, other=0.0)[:, None]
    acc *= tl.load(weight_scale + n, inside_n, other=0.0)[None, :]
    acc += tl.load(bias + n, inside_n, other=0.0).to(tl.float32)[None, :]
    at = m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(y + at, acc.to(y.dtype.element_ty), inside_m[:, None] & inside_n[None, :])


@triton.jit
def _tile(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first row and channel of this program: GROUP tiles down, then one to the right."""
    down, right = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = tl.program_id(0) // (GROUP * right)
    rows = tl.minimum(down - group * GROUP, GROUP)
    place = tl.program_id(0) % (GROUP * right)
    return (group * GROUP + place % rows) * BLOCK_M, place // rows * BLOCK_N


@triton.jit
def _rows(source, row, rows, k, K: tl.constexpr, BLOCK_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Codes [row, k] of a matrix [rows, K]; rows beyond the end are the last, k beyond it zero."""
    at = tl.minimum(row, rows - 1).to(tl.int64)[:, None] * K + k[None, :]
    if K % BLOCK_K == 0:
        return tl.load(source + at)
    else:
        return tl.load(source + at, (k < K)[None, :], other=0.0)


def fp8_linear(
    x: "Tensor",  # [M, K] float8_e4m3fn, contiguous, and so the others
    weight: "Tensor",  # [N, K] float8_e4m3fn
    x_scale: "Tensor",  # [M] fp32
    weight_scale: "Tensor",  # [N] fp32
    bias: "Tensor",  # [N], of out's dtype
    out: "Tensor",  # [M, N] fp16, bf16 or fp32
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """`fp8_linear_reference` by the kernel into `out`, with the tuned block `sizes` of its device.

    TypeError or ValueError for tensors that the kernel cannot read, or a chip without fp8.
    """
    _check(x, weight, x_scale, weight_scale, bias, out)
    chip = capability_of(x.device)
    sizes = sizes or tuned("fp8_linear", chip)
    (M, K), N = x.shape, len(weight)
    grid = (triton.cdiv(M, sizes["BLOCK_M"]) * triton.cdiv(N, sizes["BLOCK_N"]),)
    descriptors = x.is_cuda and chip >= COPY_ENGINE
    if M:
        fp8_linear_kernel[grid](
            *_sources(x, weight, sizes if descriptors else None),
            x_scale, weight_scale, bias, out, M,
            N=N, K=K, DESCRIPTORS=descriptors, **sizes,
        )  # fmt: skip
    return out


def _sources(x: "Tensor", weight: "Tensor", sizes: Mapping[str, int] | None) -> tuple[Any, Any]:
    """Codes and weights: descriptors of tiles of the given sizes, or plain pointers."""
    if sizes is None:
        return x, weight
    from triton.tools.tensor_descriptor import TensorDescriptor

    return (
        TensorDescriptor.from_tensor(x, [sizes["BLOCK_M"], sizes["BLOCK_K"]]),
        TensorDescriptor.from_tensor(weight, [sizes["BLOCK_N"], sizes["BLOCK_K"]]),
    )


def _check(
    x: "Tensor", weight: "Tensor", x_scale: "Tensor", weight_scale: "Tensor",
    bias: "Tensor", out: "Tensor",
) -> None:  # fmt: skip
    import torch

    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] % CELL:
        raise ValueError(
            f"fp8_linear takes [M, K] by [N, K], K a multiple of {CELL}, not {tuple(x.shape)} by "
            f"{tuple(weight.shape)}"
        )
    check_float("fp8_linear", out.dtype)
    (M, K), N = x.shape, len(weight)
    for name, tensor, shape, dtype in (
        ("x", x, (M, K), torch.float8_e4m3fn),
        ("weight", weight, (N, K), torch.float8_e4m3fn),
        ("x_scale", x_scale, (M,), torch.float32),
        ("weight_scale", weight_scale, (N,), torch.float32),
        ("bias", bias, (N,), out.dtype),
        ("out", out, (M, N), out.dtype),
    ):
        check_tensor(f"fp8_linear: {name}", tensor, shape, dtype, x.device)
    if x.is_cuda and (chip := capability_of(x.device)) < FIRST_CHIP:
        raise ValueError(f"fp8_linear: sm_{chip} has no fp8: take fp16 or bf16")
