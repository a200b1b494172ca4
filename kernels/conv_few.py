"""A convolution to very few channels, as `conv_out` is: all taps in one product, then their sum.

A tensor core's tile is at least 16 outputs wide, so 3x3x3 to three channels in `kernels.conv3d`
multiplies 5.3 times too much, and reads each pixel 27 times. Here a pixel is read once and multiplied
by the weights of all 27 taps: 81 numbers, kept plane by plane (`columns`), so that the sum over taps,
which are shifts, reads runs of pixels. Of 128 channels in 16 bits a pixel moves 256 bytes in, 162
out and 162 in again; the other way it moves 6912 from L2. Every number of `columns` is read once.

The past of a shot goes through the same product: its columns are not kept from call to call.

In this order: what it computes; the kernels; their launch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_tensor
from vr_trt.kernels.conv_layer import ConvForm, PackedConv, check_call
from vr_trt.kernels.conv_layer import Extras as _Extras
from vr_trt.kernels.conv_parts import in_picture
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    from torch import Tensor

_FORM = ConvForm()  # 3x3x3
TAPS = 27
MOST_OUTPUTS = 4


@dataclass(frozen=True, slots=True, eq=False)
class FewConv:
    """The weights of all taps as the rows of one matrix."""

    conv: PackedConv
    weight: "Tensor"  # [27 N, C]: tap outermost


def pack_few(conv: PackedConv) -> FewConv:
    """`conv` [N, 27 C] rearranged; ValueError for a layer of another kind."""
    if conv.form != _FORM or conv.outputs > MOST_OUTPUTS or conv.dequantise is not None:
        raise ValueError(f"conv_few is for 3x3x3 to {MOST_OUTPUTS} channels, not {conv.form}")
    by_tap = conv.weight.view(conv.outputs, TAPS, conv.channels).transpose(0, 1)
    return FewConv(conv, by_tap.reshape(-1, conv.channels).contiguous())


def few_reference(
    x: "Tensor",  # [T, H + 2, W + 2, C]
    few: FewConv,
    past: "Tensor | None" = None,  # [2, H + 2, W + 2, C]; copies of x[0] where there is none
) -> "Tensor":  # [T, H, W, N] fp32
    """The same in PyTorch, tap by tap, from the columns of whole pictures."""
    import torch

    past = x[:1].expand(2, -1, -1, -1) if past is None else past
    frames, height, width = len(x), x.shape[1] - 2, x.shape[2] - 2
    columns = torch.cat([past, x]).float() @ few.weight.float().t()
    y = few.conv.bias.expand(frames, height, width, -1).clone()
    for tap, part in enumerate(columns.split(few.conv.outputs, -1)):
        t, row, column = tap // 9, tap % 9 // 3, tap % 3
        y += part[t : t + frames, row : row + height, column : column + width]
    return y


@triton.jit
def tap_columns_kernel(  # type: ignore[no-untyped-def]
    x,  # [pixels, C], of frames in their borders
    weight,  # [ROWS, C]
    columns,  # [ROWS, step], pixels side by side
    pixels,
    step,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program: BLOCK pixels, all rows."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, BLOCK_ROWS)
    here, there = tl.minimum(pixel, pixels - 1), tl.minimum(row, ROWS - 1)
    acc = tl.zeros([BLOCK_ROWS, BLOCK], tl.float32)
    for first in range(0, C, BLOCK_K):
        c = first + tl.arange(0, BLOCK_K)
        inside = (c < C)[None, :]
        w = tl.load(weight + there[:, None] * C + c[None, :], inside, other=0.0)
        a = tl.load(x + here[:, None] * C + c[None, :], inside, other=0.0)
        acc = tl.dot(w, a.T, acc, input_precision="ieee")
    stored = (row < ROWS)[:, None] & (pixel < pixels)[None, :]
    at = columns + row.to(tl.int64)[:, None] * step + pixel[None, :]
    tl.store(at, acc.to(columns.dtype.element_ty), stored)


@triton.jit
def tap_sum_kernel(  # type: ignore[no-untyped-def]
    columns,  # [27 N, (2 + T) plane]
    bias,  # [N] fp32
    y,  # [T, H, W, N], of any strides but the last
    height, width, step,
    y_frame, y_row, y_column,
    N: tl.constexpr,
    STARTS: tl.constexpr,  # the two frames before are copies of the first
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program: a run of BLOCK pixels of one frame, all channels."""
    pitch = width + 2
    plane = (height + 2) * pitch
    t = tl.program_id(1)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of the output's rows, `pitch` apart
    row, column = m // pitch, m % pitch
    kept = in_picture(row + 1, column + 1, height, width)
    for n in tl.static_range(N):
        total = tl.zeros([BLOCK], tl.float32) + tl.load(bias + n)
        for tap in tl.static_range(27):
            frame = t + tap // 9
            if STARTS:
                frame = tl.maximum(frame, 2) - 2
            at = columns + tl.cast(tap * N + n, tl.int64) * step + frame.to(tl.int64) * plane
            at += (tap % 9 // 3) * pitch + tap % 3
            total += tl.load(at + m, kept, other=0.0).to(tl.float32)
        out = y + t.to(tl.int64) * y_frame + row * y_row + column * y_column + n
        tl.store(out, total.to(y.dtype.element_ty), kept)


def conv_few(
    x: "Tensor",  # [T, H + 2, W + 2, C] fp16, bf16 or fp32; contiguous
    few: FewConv,
    out: "Tensor",  # [T, H, W, N]; the last stride is 1
    room: "Tensor",  # [27 N, (2 + T) (H + 2) (W + 2)] of x's dtype; without a past, T
    past: "Tensor | None" = None,  # [2, H + 2, W + 2, C]
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """`few_reference` by the kernels into `out`; TypeError or ValueError as `conv3d`."""
    conv, frames = few.conv, len(x)
    check_call(x, conv, out, _Extras(past=past))
    plane, height, width = x.shape[1] * x.shape[2], x.shape[1] - 2, x.shape[2] - 2
    lead = 0 if past is None else 2
    step = (lead + frames) * plane
    check_tensor("conv_few: room", room, (TAPS * conv.outputs, step), x.dtype, x.device)
    chip = capability_of(x.device)
    options = dict(sizes or tuned("conv_few", chip))
    rows = max(16, triton.next_power_of_2(len(few.weight)))
    for pictures, first in ((past, 0), (x, lead * plane)):
        if pictures is not None:
            pixels = len(pictures) * plane
            tap_columns_kernel[(triton.cdiv(pixels, options["BLOCK"]),)](
                pictures, few.weight, room[:, first:], pixels, step,
                ROWS=len(few.weight), C=conv.channels, BLOCK_ROWS=rows, **options,
            )  # fmt: skip
    block = 256
    tap_sum_kernel[(triton.cdiv(height * (width + 2), block), frames)](
        room, conv.bias, out, height, width, step, *out.stride()[:3],
        N=conv.outputs, STARTS=past is None, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out
