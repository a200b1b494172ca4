"""The products of a convolution: what one program adds up, of one output frame or of two.

**Two frames** of 3x3x3 share what they read. Outputs t and t + 1 see the frames t - 2 to t + 1: for each
tap of the picture, four tiles of pixels and three of weights make six products, where one frame at a
time reads twelve tiles. At 128 x 128 that is 110 operations a byte, against 85 of one frame's 256 x 128,
for the same accumulators.
"""

import triton
import triton.language as tl

from vr_trt.kernels.conv_parts import in_picture, normed, pixels_of, weights_of


@triton.jit
def sums_of_a_frame(  # type: ignore[no-untyped-def]
    x, past, weight, tables, place, size,
    C: tl.constexpr, N: tl.constexpr, KT: tl.constexpr, K: tl.constexpr,
    LEAD: tl.constexpr, PAST: tl.constexpr, NORM: tl.constexpr, DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The accumulator of one frame; see `kernels.conv3d`.

    `place`: the frame of the first tap, the first of the run of pixels, their rows and columns, the
    phase and the first output. `size`: rows and columns of x.
    """
    first, start, row, column, phase, first_n = place
    height, width = size
    scale_shift, past_scale_shift = tables
    pitch = width + 2
    plane = (height + 2) * pitch
    TAPS: tl.constexpr = K * K
    BLOCKS_C: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    of_past = tl.minimum(tl.maximum(-first, 0), KT) if PAST else 0
    for present in tl.static_range(0 if PAST else 1, 2):
        source = x if present else past
        table = scale_shift if present else past_scale_shift
        taps_from = of_past if present else 0
        taps_to = KT if present else of_past
        # Taps outside, channels inside: the weights are read from end to end.
        for step in range(taps_from * TAPS * BLOCKS_C, taps_to * TAPS * BLOCKS_C):
            tap, c = step // BLOCKS_C, step % BLOCKS_C * BLOCK_K
            frame = first + tap // TAPS
            frame = tl.maximum(frame, 0) if present else frame + LEAD
            dh, dw = tap % TAPS // K, tap % K
            if DESCRIPTORS:
                a = source.load([frame * plane + start + dh * pitch + dw, c])
                b = weight.load([phase * N + first_n, tap * C + c])
            else:
                pixel = frame.to(tl.int64) * plane + (row + dh) * pitch + column + dw
                n = first_n + tl.arange(0, BLOCK_N)
                a = pixels_of(source, pixel, c + k, C, BLOCK_K)
                at = phase * N, n, tap * C, c + k
                b = weights_of(weight, at, N, C, KT * TAPS * C, BLOCK_N, BLOCK_K)
            if NORM:
                seen = in_picture(row + dh, column + dw, height, width)
                a = normed(a, table + frame * 2 * C, c + k, seen, C, NORM == 2)
            acc = tl.dot(a, b.T, acc, input_precision="ieee")
    return acc


@triton.jit
def sums_of_two_frames(  # type: ignore[no-untyped-def]
    x, past, weight, place, grid,
    C: tl.constexpr, N: tl.constexpr, PAST: tl.constexpr, DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Accumulators of the output frames t and t + 1, t being even; see `kernels.conv3d`.

    `place`: t, the first of the run of pixels, their rows and columns, the first output.
    `grid`: elements of a frame, and of a row.
    """
    t, start, row, column, first_n = place
    plane, pitch = grid
    BLOCKS_C: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    n = first_n + tl.arange(0, BLOCK_N)
    one = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    two = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for present in tl.static_range(0 if PAST else 1, 2):
        early = x if present else past  # where the frames t - 2 and t - 1 lie
        lead = 0 if present else 2
        steps = 9 * BLOCKS_C
        if PAST:
            steps = tl.where((t >= 2) if present else (t < 2), steps, 0)
        for step in range(steps):
            tap, c = step // BLOCKS_C, step % BLOCKS_C * BLOCK_K
            dh, dw = tap // 3, tap % 3
            before, last = tl.maximum(t - 2 + lead, 0), tl.maximum(t - 1 + lead, 0)
            if DESCRIPTORS:
                at = start + dh * pitch + dw
                a0 = early.load([before * plane + at, c])
                a1 = early.load([last * plane + at, c])
                a2 = x.load([t * plane + at, c])
                a3 = x.load([(t + 1) * plane + at, c])
                b0 = weight.load([first_n, tap * C + c])
                b1 = weight.load([first_n, (9 + tap) * C + c])
                b2 = weight.load([first_n, (18 + tap) * C + c])
            else:
                at = (row + dh) * pitch + column + dw
                a0 = pixels_of(early, before.to(tl.int64) * plane + at, c + k, C, BLOCK_K)
                a1 = pixels_of(early, last.to(tl.int64) * plane + at, c + k, C, BLOCK_K)
                a2 = pixels_of(x, t.to(tl.int64) * plane + at, c + k, C, BLOCK_K)
                a3 = pixels_of(x, (t + 1).to(tl.int64) * plane + at, c + k, C, BLOCK_K)
                b0 = weights_of(weight, (0, n, tap * C, c + k), N, C, 27 * C, BLOCK_N, BLOCK_K)
                b1 = weights_of(
                    weight, (0, n, (9 + tap) * C, c + k), N, C, 27 * C, BLOCK_N, BLOCK_K
                )
                b2 = weights_of(
                    weight, (0, n, (18 + tap) * C, c + k), N, C, 27 * C, BLOCK_N, BLOCK_K
                )
            one = tl.dot(a0, b0.T, one, input_precision="ieee")
            one = tl.dot(a1, b1.T, one, input_precision="ieee")
            one = tl.dot(a2, b2.T, one, input_precision="ieee")
            two = tl.dot(a1, b0.T, two, input_precision="ieee")
            two = tl.dot(a2, b1.T, two, input_precision="ieee")
            two = tl.dot(a3, b2.T, two, input_precision="ieee")
    return one, two
