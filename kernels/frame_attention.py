"""Attention of one wide head over the positions of each frame, without the matrix of scores.

The VAE has one such layer in each coder: one head of 512 over h w positions, 14,400 at 720p and
32,160 at 1080p, where the scores of one frame would be 0.4 and 2 GB in 16 bits. Source: network
spec §6.

Tiles of keys pass by a tile of queries; maximum, sum and output are kept in fp32. The head is wider
than fused attention is made for: a tile of 64 queries would need 64 KB of shared memory, as many
keys and values 128 KB more, and 64 x 512 accumulators are half of a multiprocessor's registers. So

- the scores are summed over BLOCK_D dimensions at a time, of queries and keys alike, which come
  from L2 again and again: 40 KB in flight, where 86, 89 and 120 have 99;
- the values are split over programs, BLOCK_V columns each, and the scores computed by each of them:
  with two, half as much arithmetic again.

It is 0.5 % of the decoder's arithmetic at 720p: that it fits comes before that it is fast.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launch from Python.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_float
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    from torch import Tensor

_INTERPRETED = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_D": 64, "BLOCK_V": 128}  # for tests on the CPU
_LOG2_E = 1.4426950408889634


def frame_attention_reference(qkv: "Tensor") -> "Tensor":  # [F, H, W, 3 D] -> [F, H, W, D]
    """softmax(q kᵀ / √D) v within each frame."""
    from torch.nn import functional as F

    q, k, v = (part.unsqueeze(1) for part in qkv.flatten(1, 2).chunk(3, -1))
    return F.scaled_dot_product_attention(q, k, v).view(*qkv.shape[:3], -1)


@triton.jit
def frame_attention_kernel(  # type: ignore[no-untyped-def]
    qkv,  # [F, H, W, 3 D], contiguous
    out,  # [F, H, W, D], of any strides but the last
    positions,  # H W
    scale,  # of the scores, times log2 e
    width,
    out_frame,
    out_row,
    out_column,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Each program: BLOCK_M queries of one frame and BLOCK_V columns of the values."""
    frame = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    queries = qkv + (frame * positions + m)[:, None] * (3 * D) + d[None, :]
    keys = qkv + frame * positions * 3 * D + n[:, None] * (3 * D) + D + d[None, :]
    values = qkv + frame * positions * 3 * D + n[:, None] * (3 * D) + 2 * D + v[None, :]
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc_MV = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for first in range(0, positions, BLOCK_N):
        real_n = first + n < positions
        scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for start in range(0, D, BLOCK_D):
            q_there, k_there = (m < positions)[:, None], real_n[:, None]
            if D % BLOCK_D:
                q_there &= (start + d < D)[None, :]
                k_there &= (start + d < D)[None, :]
            q = tl.load(queries + start, q_there, other=0.0)
            k = tl.load(keys + start, k_there, other=0.0)
            scores = tl.dot(q, k.T, scores, input_precision="ieee")
        scores = tl.where(real_n[None, :], scores * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        p_MN = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(p_MN, 1)
        largest = larger
        v_there = real_n[:, None]
        if D % BLOCK_V:
            v_there &= (v < D)[None, :]
        v_NV = tl.load(values, v_there, other=0.0)
        acc_MV = acc_MV * shrink[:, None]
        acc_MV = tl.dot(p_MN.to(v_NV.dtype), v_NV, acc_MV, input_precision="ieee")
        keys += BLOCK_N * 3 * D
        values += BLOCK_N * 3 * D
    result = (acc_MV / total[:, None]).to(out.dtype.element_ty)
    at = frame * out_frame + m // width * out_row + m % width * out_column
    tl.store(out + at[:, None] + v[None, :], result, (m < positions)[:, None] & (v < D)[None, :])


def frame_attention(
    qkv: "Tensor",  # [F, H, W, 3 D] fp16, bf16 or fp32, contiguous
    out: "Tensor",  # [F, H, W, D]; the last stride is 1
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """`frame_attention_reference` by the kernel into `out`, with the tuned block `sizes`.

    TypeError or ValueError for what the kernel cannot read.
    """
    _check(qkv, out)
    frames, height, width, head = out.shape
    constants = attention_constants(head, sizes or _sizes(qkv))
    positions, columns = height * width, triton.cdiv(head, constants["BLOCK_V"])
    frame_attention_kernel[triton.cdiv(positions, constants["BLOCK_M"]), columns, frames](
        qkv, out, positions, head**-0.5 * _LOG2_E, width, *out.stride()[:3], **constants
    )
    return out


def attention_constants(head: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """The kernel's compile-time arguments for a head of `head`, with the tuned block `sizes`."""
    widest = max(16, triton.next_power_of_2(head))
    cut = {name: min(sizes[name], widest) for name in ("BLOCK_D", "BLOCK_V")}
    return {"D": head, **sizes, **cut}


def _sizes(qkv: "Tensor") -> dict[str, int]:
    if not qkv.is_cuda:
        return _INTERPRETED
    return tuned("frame_attention", capability_of(qkv.device), bits=8 * qkv.element_size())


def _check(qkv: "Tensor", out: "Tensor") -> None:
    check_float("frame_attention", qkv.dtype)
    if out.dtype != qkv.dtype:
        raise TypeError(f"frame_attention gives {qkv.dtype}, as it is given, not {out.dtype}")
    if qkv.ndim != 4 or qkv.shape != (*out.shape[:3], 3 * out.shape[-1]):
        raise ValueError(f"frame_attention: {tuple(qkv.shape)} does not give {tuple(out.shape)}")
    if not qkv.is_contiguous() or out.stride(3) != 1:
        raise ValueError("frame_attention reads dense pictures and writes dense channels")
