"""A convolution to very few channels, as `conv_out` is: by taps of the picture, then their sum.

A tensor core's tile is at least 16 outputs wide, so 3x3x3 to three channels in `kernels.conv3d`
multiplies 5.3 times too much, and reads each pixel 27 times. Here one product gives, for each pixel of
an output frame, what it adds to the nine pixels around it: nine times three numbers, already summed
over the three frames of taps. A second pass adds the nine. They are kept in fp32, plane by plane
(`columns`), so that each is read once, in runs, and nothing is rounded on the way.

With 128 channels in 16 bits, a pixel moves 768 bytes from L2, then 108 bytes out and in again;
`conv3d` moves 6912 bytes from L2.

In this order: the plain reference; the kernels; their launches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from vr_trt.kernels.checks import check_tensor
from vr_trt.kernels.conv_layer import Extras, PackedConv, check_call
from vr_trt.kernels.conv_parts import in_picture
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SHIFTS = 9  # of a pixel's taps in a frame
MOST_OUTPUTS = 4
_WORDS = 16  # numbers: planes begin at a multiple of so many


@dataclass(frozen=True, slots=True, eq=False)
class FewConv:
    """A 3x3 layer's weights as rows: what a pixel, in its frame and those before, adds around it."""

    conv: PackedConv
    weight: "Tensor"  # [9 N, taps C]: shift outermost

    def room(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape of `columns` for so many frames."""
        plane = (height + 2) * (width + 2)
        return frames, len(self.weight), -(-plane // _WORDS) * _WORDS


def goes_by_taps(conv: PackedConv, chip: int) -> bool:
    """Whether the tuned table of `chip`, as 89, has this layer computed so."""
    row = tuned("conv_few", chip)
    return _is_able(conv) and conv.outputs <= row["UP_TO"] and conv.channels >= row["FROM"]


def _is_able(conv: PackedConv) -> bool:
    form = conv.form
    alike = (form.kernel, form.stride, form.stride_t) == (3, 1, 1)
    return alike and conv.outputs <= MOST_OUTPUTS and conv.dequantise is None


def pack_few(conv: PackedConv) -> FewConv:
    """`conv` [N, taps 9 C] rearranged; ValueError for a layer of another kind."""
    if not _is_able(conv):
        raise ValueError(f"conv_few is for 3x3 to {MOST_OUTPUTS} channels, not {conv.form}")
    by_shift = conv.weight.view(conv.outputs, conv.form.taps, _SHIFTS, conv.channels)
    rows = by_shift.permute(2, 0, 1, 3).reshape(_SHIFTS * conv.outputs, -1)
    return FewConv(conv, rows.contiguous())


def few_reference(
    x: "Tensor",  # [T, H + 2, W + 2, C]
    few: FewConv,
    past: "Tensor | None" = None,  # [taps - 1, H + 2, W + 2, C]; copies of x[0] where there is none
) -> "Tensor":  # [T, H, W, N] fp32
    """The convolution in PyTorch: columns of whole pictures, then their sum, shift by shift."""
    import torch

    conv, taps = few.conv, few.conv.form.taps
    past = x[:1].expand(taps - 1, -1, -1, -1) if past is None else past
    frames, height, width = len(x), x.shape[1] - 2, x.shape[2] - 2
    clip = torch.cat([past, x]).float()
    seen = torch.cat([clip[tap : tap + frames] for tap in range(taps)], -1)  # [T, .., .., taps C]
    columns = seen @ few.weight.float().t()
    y = conv.bias.expand(frames, height, width, -1).clone()
    for shift, part in enumerate(columns.split(conv.outputs, -1)):
        row, column = shift // 3, shift % 3
        y += part[:, row : row + height, column : column + width]
    return y


@triton.jit
def tap_columns_kernel(  # type: ignore[no-untyped-def]
    x,  # [T, plane, C], of frames in their borders
    past,  # [TAPS - 1, plane, C]: the frames before, likewise
    weight,  # [ROWS, TAPS C]
    columns,  # [T, ROWS, step] fp32, pixels side by side
    frames, plane, step,
    ROWS: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
    PAST: tl.constexpr,  # whether the frames before are `past`, or copies of x[0]
    BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Each program: BLOCK pixels of one frame, all rows. Later frames of the pixels come next."""
    t = tl.program_id(0) % frames
    pixel = tl.program_id(0) // frames * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, BLOCK_ROWS)
    here, there = tl.minimum(pixel, plane - 1), tl.minimum(row, ROWS - 1)
    BLOCKS_C: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    acc = tl.zeros([BLOCK, BLOCK_ROWS], tl.float32)
    for k in range(TAPS * BLOCKS_C):
        frame, c = t + k // BLOCKS_C - (TAPS - 1), k % BLOCKS_C * BLOCK_K + tl.arange(0, BLOCK_K)
        picture = x + tl.maximum(frame, 0).to(tl.int64) * plane * C
        if PAST:
            before = past + tl.minimum(frame + TAPS - 1, TAPS - 2).to(tl.int64) * plane * C
            picture = tl.where(frame < 0, before, picture)
        inside = (c < C)[None, :]
        a = tl.load(picture + here[:, None] * C + c[None, :], inside, other=0.0)
        at = there[:, None] * (TAPS * C) + (k // BLOCKS_C * C + c)[None, :]
        w = tl.load(weight + at, inside, other=0.0)
        acc = tl.dot(a, w.T, acc, input_precision="ieee")
    first = columns + t.to(tl.int64) * ROWS * step
    stored = (pixel < plane)[:, None] & (row < ROWS)[None, :]
    tl.store(first + pixel[:, None] + row.to(tl.int64)[None, :] * step, acc, stored)


@triton.jit
def tap_sum_kernel(  # type: ignore[no-untyped-def]
    columns,  # [T, 9 N, step] fp32
    bias,  # [N] fp32
    y,  # [T, H, W, N], of any strides but the last
    height, width, step,
    y_frame, y_row, y_column,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program: a run of BLOCK pixels of one frame, all channels."""
    pitch = width + 2
    t = tl.program_id(1)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of the output's rows, `pitch` apart
    row, column = m // pitch, m % pitch
    kept = in_picture(row + 1, column + 1, height, width)
    first = columns + t.to(tl.int64) * 9 * N * step
    for n in tl.static_range(N):
        total = tl.zeros([BLOCK], tl.float32) + tl.load(bias + n)
        for shift in tl.static_range(9):
            at = first + tl.cast(shift * N + n, tl.int64) * step + shift // 3 * pitch + shift % 3
            total += tl.load(at + m, kept, other=0.0)
        out = y + t.to(tl.int64) * y_frame + row * y_row + column * y_column + n
        tl.store(out, total.to(y.dtype.element_ty), kept)


def tap_columns(
    x: "Tensor",  # [T, H + 2, W + 2, C] fp16, bf16 or fp32; contiguous, zero in its border
    few: FewConv,
    columns: "Tensor",  # few.room(T, H, W) fp32
    past: "Tensor | None" = None,  # [taps - 1, H + 2, W + 2, C]
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """What every pixel adds to those around it, into `columns`."""
    _check_room(columns, few, (len(x), x.shape[1] - 2, x.shape[2] - 2), x.device)
    frames, _, step = columns.shape
    plane = x.shape[1] * x.shape[2]
    constants = columns_constants(few, past is not None, capability_of(x.device), sizes)
    tap_columns_kernel[(triton.cdiv(plane, constants["BLOCK"]) * frames,)](
        x, x if past is None else past, few.weight, columns, frames, plane, step, **constants
    )
    return columns


def columns_constants(
    few: FewConv, past: bool, chip: int, sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The kernel's compile-time arguments, with the tuned sizes of `chip` or others."""
    options = dict(sizes or tuned("conv_few", chip))
    del options["UP_TO"], options["FROM"]  # which say whether, not how
    rows = max(16, triton.next_power_of_2(len(few.weight)))
    return {
        "ROWS": len(few.weight), "C": few.conv.channels, "TAPS": few.conv.form.taps,
        "PAST": past, "BLOCK_ROWS": rows, **options,
    }  # fmt: skip


def tap_sum(
    columns: "Tensor",  # few.room(T, H, W) fp32
    few: FewConv,
    out: "Tensor",  # [T, H, W, N]; the last stride is 1
) -> "Tensor":
    """The sum of `columns` over the nine shifts, and the bias, into `out`."""
    frames, height, width, _ = out.shape
    _check_room(columns, few, (frames, height, width), out.device)
    constants = sum_constants(few)
    tap_sum_kernel[(triton.cdiv(height * (width + 2), constants["BLOCK"]), frames)](
        columns, few.conv.bias, out, height, width, columns.shape[2], *out.stride()[:3], **constants
    )
    return out


def sum_constants(few: FewConv) -> dict[str, Any]:
    """The kernel's compile-time arguments."""
    return {"N": few.conv.outputs, "BLOCK": 256, "num_warps": 4}


def conv_few(
    x: "Tensor",  # [T, H + 2, W + 2, C] fp16, bf16 or fp32; contiguous, zero in its border
    few: FewConv,
    out: "Tensor",  # [T, H, W, N]; the last stride is 1
    columns: "Tensor",  # few.room(T, H, W) fp32
    past: "Tensor | None" = None,  # [taps - 1, H + 2, W + 2, C]
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """`few_reference` by the kernels into `out`; TypeError or ValueError as `conv3d`."""
    check_call(x, few.conv, out, Extras(past=past))
    return tap_sum(tap_columns(x, few, columns, past, sizes), few, out)


def _check_room(
    columns: "Tensor", few: FewConv, size: tuple[int, int, int], device: "torch.device"
) -> None:
    import torch

    check_tensor("conv_few: columns", columns, few.room(*size), torch.float32, device)
