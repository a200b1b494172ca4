"""Causal convolution as one matrix product over shifted pixels, channels last.

Pictures lie in a border of zeros, one pixel wide: [F, H + 2, W + 2, C]. The border is the
convolution's padding, so a tap is a shift by a constant number of pixels: the product needs no
mask, a tile is any run of pixels, and the copy engine of sm_90 and later fetches it whole. What
falls on the border of a run is computed and not stored: 2 of W + 2 columns.

One kernel serves every layer of the VAE: 3x3x3, 1x3x3, 1x1x1, strides of two in space and time, and
the sub-pixel convolution of `export/sub_pixel.py`. On the way in it may apply the group norm and
SiLU; on the way out it adds bias and residual and leaves the moments of what it wrote to the next
norm. The past of a shot is a second tensor, read where it lies. Source: network spec §6.

**Norm in the prologue, or a pass before it?** A 3x3x3 layer reads every element 27 N / BLOCK_N
times, and would compute SiLU (an exponential and a reciprocal, 16 a clock and multiprocessor) each
time. On sm_90 the product of one element with 128 outputs takes 256 / 4096 of a clock, the two
functions 2 / 16: twice as long. A pass of its own (`group_norm.activate`) reads and writes each
element once: at C = 128 and 16 bits that is 512 bytes against 0.88 MFLOP, 0.12 ns against 1.1 ns at
4.3 TB/s and 790 TFLOP/s. So 3x3x3 takes activated pictures, and the prologue is for 1x1x1.

**Block sizes on sm_90.** A step moves (M + N) K elements from L2 for 2 M N K operations: 64 FLOP
per byte with 128 x 128, 85 with 256 x 128, which at 7 TB/s of L2 allows 600 TFLOP/s; 256 x 128 x 4
bytes of accumulators are half the register file, so there is one block of 8 warps on each
multiprocessor and its 227 KB hold four steps of K = 64 (48 KB each) in flight.

**fp8.** E4M3 halves every step's bytes, so a step has 128 elements of K. While it adds products of
E4M3, sm_90 keeps fewer bits than fp32 has (reported elsewhere: about 14); sums in full after every
step would want the accumulators' registers twice.

In this order: the plain reference; the kernel; its launch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from vr_trt.kernels.conv_layer import (
    PLAIN,
    Extras,
    PackedConv,
    Prologue,
    check_call,
    inside,
    unpack,
)
from vr_trt.kernels.conv_parts import (
    doubled,
    leave_moments,
    program_of,
    runs_of_columns,
    without_edge,
)
from vr_trt.kernels.conv_sizes import conv_tiles, pairs_frames, tuned_sizes
from vr_trt.kernels.conv_sums import sums_of_a_frame, sums_of_two_frames
from vr_trt.kernels.group_norm import activate_reference
from vr_trt.kernels.tuning import COPY_ENGINE, capability_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def conv3d_reference(
    x: "Tensor",  # [T, H + 2, W + 2, C]
    conv: PackedConv,
    extras: Extras = PLAIN,
    dtype: "torch.dtype | None" = None,
) -> "Tensor":  # [F, H', W', N]
    """The convolution in plain PyTorch, in `dtype`, or fp32."""
    import torch
    from torch.nn import functional as F

    dtype, form, lead = dtype or torch.float32, conv.form, extras.lead_of(conv)
    frames = _activated(inside(x).to(dtype), extras.prologue, past=False)
    if extras.past is None:
        past = frames[:1].expand(lead, -1, -1, -1)
    else:
        past = _activated(inside(extras.past).to(dtype), extras.prologue, past=True)
    height, width = frames.shape[1:3]
    clip = torch.cat([past, frames]).permute(3, 0, 1, 2)[None]  # [1, C, T, H, W]
    sides = {1: (0, 0, 0, 0), 2: (1, 1, 1, 1), 3: (1, 1, 1, 1)}[form.kernel]
    clip = F.pad(clip, (0, 1, 0, 1) if form.stride == 2 else sides)
    weight = unpack(conv)
    if conv.dequantise is not None:
        weight *= conv.dequantise.view(-1, 1, 1, 1, 1)
    stride = (form.stride_t, form.stride, form.stride)
    y = F.conv3d(clip, weight.to(dtype), conv.bias.to(dtype), stride)[0]
    if conv.edge is not None:
        outside = F.pad(y.new_zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
        edge = conv.edge.T.view(-1, 1, form.kernel, form.kernel).to(dtype)
        y = y - F.conv2d(outside, edge)[0, :, None]
    y = y.unflatten(0, (form.up, form.up, form.up_t, -1))  # row, column, frame, N, T, H, W
    y = y.permute(4, 2, 5, 0, 6, 1, 3).flatten(4, 5).flatten(2, 3).flatten(0, 1)
    if form.up == 2:  # the outermost pairs give one output each
        y = y[:, 1:-1, 1:-1]
    return y if extras.residual is None else y + extras.residual.to(dtype)


def _activated(x: "Tensor", prologue: Prologue | None, *, past: bool) -> "Tensor":
    if prologue is None:
        return x
    table = prologue.past if past else prologue.scale_shift
    assert table is not None
    return activate_reference(x, table, prologue.silu)


@triton.jit
def conv3d_kernel(  # type: ignore[no-untyped-def]
    x,  # [T, H + 2, W + 2, C], or the descriptor of its pixels [T (H + 2) (W + 2), C]
    past,  # [LEAD, H + 2, W + 2, C]: the frames before, likewise
    weight,  # [PHASES N, KT K K C], or its descriptor
    bias,  # [PHASES N] fp32
    edge,  # [K K, PHASES N] fp32: what a tap that lies outside the picture takes away
    dequantise,  # [PHASES N] fp32
    scale_shift, past_scale_shift,  # [T, 2, C], [LEAD, 2, C] fp32
    residual,  # like y
    y,  # [UP_T frames, .., .., N], of any strides but the last
    moments,  # [UP_T frames, tiles, 2, N] fp32: mean and squared deviations of each tile
    counts,  # [UP_T frames, tiles] fp32: of its pixels
    frames, rows, columns,  # the grid: y's, before it is spread over the phases
    height, width, y_frame, y_row, y_column,  # of x; y's strides
    C: tl.constexpr, N: tl.constexpr,
    KT: tl.constexpr, K: tl.constexpr, STRIDE_T: tl.constexpr, STRIDE: tl.constexpr,
    CORNER: tl.constexpr,  # where the first tap of the first output lies, from the border's corner
    LEAD: tl.constexpr,  # frames before x[0] that the first output reads
    PAST: tl.constexpr,  # whether they are `past`, or copies of x[0]
    UP_T: tl.constexpr, UP: tl.constexpr,
    NORM: tl.constexpr,  # 0, 1: norm, 2: norm and SiLU
    EDGE: tl.constexpr, QUANTISED: tl.constexpr, RESIDUAL: tl.constexpr, MOMENTS: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PARTS: tl.constexpr,  # 1, 2 or 4: into how many the epilogue cuts the columns
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FRAMES: tl.constexpr,  # of the grid that a program computes: 1, or 2 of 3x3x3
):  # fmt: skip
    """Each program: BLOCK_M pixels of FRAMES frames, BLOCK_N channels of one sub-pixel phase."""
    PHASES: tl.constexpr = UP_T * UP * UP
    TILES_N: tl.constexpr = PHASES * ((N + BLOCK_N - 1) // BLOCK_N)
    tile_m, t, phase, first_n = program_of(frames // FRAMES, TILES_N, PHASES, BLOCK_N)
    t *= FRAMES

    pitch = width + 2
    plane = (height + 2) * pitch
    run = columns if STRIDE > 1 else pitch  # outputs of a row, with those that are not stored
    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(m // run, rows - 1) * STRIDE + CORNER  # of the first tap
    column = tl.minimum(m % run, columns - 1) * STRIDE + CORNER
    start = tile_m * BLOCK_M + CORNER * (pitch + 1)  # the first of a run of pixels

    if FRAMES == 2:
        sums = sums_of_two_frames(
            x, past, weight, t, first_n, (plane, pitch, start, row, column),
            C, N, PAST, DESCRIPTORS, BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
    else:
        sums = (
            sums_of_a_frame(
                x, past, weight, (scale_shift, past_scale_shift),
                (t * STRIDE_T - LEAD, start, row, column, phase, first_n), (height, width),
                C, N, KT, K, LEAD, PAST, NORM, DESCRIPTORS, BLOCK_M, BLOCK_N, BLOCK_K,
            ),
        )  # fmt: skip

    kept = (m < rows * run) & (m % run < columns)
    y_at = m // run * y_row + m % run * y_column
    if UP == 2:
        up_row, up_column = doubled(m // run, m % run, phase, UP_T)
        kept &= (up_row >= 0) & (up_row < 2 * height)
        kept &= (up_column >= 0) & (up_column < 2 * width)
        y_at = up_row * y_row + up_column * y_column
    tiles = tl.cdiv(rows * run, BLOCK_M) * UP * UP
    PART: tl.constexpr = BLOCK_N // PARTS
    for f in tl.static_range(FRAMES):
        out_frame = (t + f) * UP_T + phase % UP_T
        slot = out_frame * tiles + tile_m * UP * UP + phase // UP_T
        parts = runs_of_columns(sums[f], PARTS)
        for i in tl.static_range(PARTS):
            part = parts[i]
            n = first_n + i * PART + tl.arange(0, PART)
            if QUANTISED:
                part *= tl.load(dequantise + phase * N + n, n < N, other=0.0)[None, :]
            part += tl.load(bias + phase * N + n, n < N, other=0.0)[None, :]
            if EDGE:
                lost = edge + phase * N
                part = without_edge(part, lost, n, row, column, height, width, N, PHASES * N, K)
            stored = kept[:, None] & (n < N)[None, :]
            at = out_frame.to(tl.int64) * y_frame + y_at[:, None] + n[None, :]
            if RESIDUAL:
                part += tl.load(residual + at, stored, other=0.0).to(tl.float32)
            out = part.to(y.dtype.element_ty)
            tl.store(y + at, out, stored)
            if MOMENTS:
                leave_moments(out, kept, moments + slot * 2 * N, n, N)
        if MOMENTS:
            tl.store(counts + slot, tl.sum(kept.to(tl.float32), 0))


def conv3d(
    x: "Tensor",  # [T, H + 2, W + 2, C] fp16, bf16, fp32 or E4M3; contiguous
    conv: PackedConv,
    out: "Tensor",  # [F, H', W', N]; the last stride is 1
    extras: Extras = PLAIN,
    sizes: Mapping[str, int] | None = None,
) -> "Tensor":
    """`conv3d_reference` by the kernel into `out`, with the tuned block `sizes` of x's device.

    TypeError or ValueError for what the kernel cannot read.
    """
    check_call(x, conv, out, extras)
    lead = extras.lead_of(conv)
    form, T, height, width = conv.form, len(x), x.shape[1] - 2, x.shape[2] - 2
    sizes = dict(sizes or tuned_sizes(x, conv, extras))
    tiles = conv_tiles(conv, height, width, sizes)
    if extras.moments is not None and extras.moments.counts.shape != (len(out), tiles):
        raise ValueError(f"conv3d leaves moments of {len(out)} frames in {tiles} tiles each")
    rows, columns = form.grid(height, width)
    frames = form.frames(T, lead)
    if sizes["FRAMES"] > 1 and not pairs_frames(conv, extras, T):
        raise ValueError(f"conv3d has {frames} frames of {form} one by one: FRAMES is 1 there")
    grid = (
        tiles // form.up**2
        * (frames // sizes["FRAMES"]) * form.phases * triton.cdiv(conv.outputs, sizes["BLOCK_N"]),
    )  # fmt: skip
    tables, moments, unused = extras.prologue, extras.moments, conv.bias
    descriptors = uses_descriptors(x, conv)
    past = x if extras.past is None else extras.past
    conv3d_kernel[grid](
        *_sources(x, past, conv, sizes if descriptors else None),
        conv.bias,
        unused if conv.edge is None else conv.edge,
        unused if conv.dequantise is None else conv.dequantise,
        unused if tables is None else tables.scale_shift,
        unused if tables is None or tables.past is None else tables.past,
        out if extras.residual is None else extras.residual,
        out,
        unused if moments is None else moments.values,
        unused if moments is None else moments.counts,
        frames, rows, columns, height, width, *out.stride()[:3],
        **conv_constants(conv, extras), DESCRIPTORS=descriptors, **sizes,
    )  # fmt: skip
    return out


def conv_constants(conv: PackedConv, extras: Extras) -> dict[str, Any]:
    """The kernel's compile-time arguments that the layer and the call decide."""
    form, tables = conv.form, extras.prologue
    return {
        "C": conv.channels, "N": conv.outputs, "KT": form.taps, "K": form.kernel,
        "STRIDE_T": form.stride_t, "STRIDE": form.stride, "CORNER": form.corner,
        "LEAD": extras.lead_of(conv), "PAST": extras.past is not None,
        "UP_T": form.up_t, "UP": form.up,
        "NORM": 0 if tables is None else 2 if tables.silu else 1,
        "EDGE": conv.edge is not None, "QUANTISED": conv.dequantise is not None,
        "RESIDUAL": extras.residual is not None, "MOMENTS": extras.moments is not None,
    }  # fmt: skip


def uses_descriptors(x: "Tensor", conv: PackedConv) -> bool:
    """Whether the copy engine may fetch the tiles: runs of pixels only, and not before sm_90."""
    return conv.form.stride == 1 and x.is_cuda and capability_of(x.device) >= COPY_ENGINE


def _sources(
    x: "Tensor", past: "Tensor", conv: PackedConv, sizes: Mapping[str, int] | None
) -> tuple[Any, Any, Any]:
    """Pictures and weights: descriptors of tiles of the given sizes, or plain pointers."""
    if sizes is None:
        return x, past, conv.weight
    from triton.tools.tensor_descriptor import TensorDescriptor

    pixels = [sizes["BLOCK_M"], sizes["BLOCK_K"]]
    return (
        TensorDescriptor.from_tensor(x.flatten(0, 2), pixels),
        TensorDescriptor.from_tensor(past.flatten(0, 2), pixels),
        TensorDescriptor.from_tensor(conv.weight, [sizes["BLOCK_N"], sizes["BLOCK_K"]]),
    )
