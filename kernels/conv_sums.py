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
    places = (height + 2) * pitch, pitch, start, row, column
    TAPS: tl.constexpr = K * K
    BLOCKS_C: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
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
            a = pixels_of(source, frame, places, (dh, dw), c, C, BLOCK_K, DESCRIPTORS)
            at = phase * N, first_n, tap, c
            b = weights_of(weight, at, N, C, KT * TAPS * C, BLOCK_N, BLOCK_K, DESCRIPTORS)
            if NORM:
                seen = in_picture(row + dh, column + dw, height, width)
                k = c + tl.arange(0, BLOCK_K)
                a = normed(a, table + frame * 2 * C, k, seen, C, NORM == 2)
            acc = tl.dot(a, b.T, acc, input_precision="ieee")
    return acc


@triton.jit
def sums_of_two_frames(  # type: ignore[no-untyped-def]
    x, past, weight, t, first_n, places,
    C: tl.constexpr, N: tl.constexpr, PAST: tl.constexpr, DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Accumulators of the output frames t and t + 1, t being even; see `kernels.conv3d`.

    `places`: as `pixels_of` takes them.
    """
    BLOCKS_C: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    ROW: tl.constexpr = 27 * C
    one = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    two = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for present in tl.static_range(0 if PAST else 1, 2):
        early = x if present else past  # where the frames t - 2 and t - 1 lie
        lead = 0 if present else 2
        f0, f1 = tl.maximum(t - 2 + lead, 0), tl.maximum(t - 1 + lead, 0)
        steps = 9 * BLOCKS_C
        if PAST:
            steps = tl.where((t >= 2) if present else (t < 2), steps, 0)
        for step in range(steps):
            of, c = step // BLOCKS_C, step % BLOCKS_C * BLOCK_K  # the tap of the picture
            tap = of // 3, of % 3
            a0 = pixels_of(early, f0, places, tap, c, C, BLOCK_K, DESCRIPTORS)
            a1 = pixels_of(early, f1, places, tap, c, C, BLOCK_K, DESCRIPTORS)
            a2 = pixels_of(x, t, places, tap, c, C, BLOCK_K, DESCRIPTORS)
            a3 = pixels_of(x, t + 1, places, tap, c, C, BLOCK_K, DESCRIPTORS)
            at0, at1, at2 = (0, first_n, of, c), (0, first_n, 9 + of, c), (0, first_n, 18 + of, c)
            b0 = weights_of(weight, at0, N, C, ROW, BLOCK_N, BLOCK_K, DESCRIPTORS)
            b1 = weights_of(weight, at1, N, C, ROW, BLOCK_N, BLOCK_K, DESCRIPTORS)
            b2 = weights_of(weight, at2, N, C, ROW, BLOCK_N, BLOCK_K, DESCRIPTORS)
            one = tl.dot(a0, b0.T, one, input_precision="ieee")
            one = tl.dot(a1, b1.T, one, input_precision="ieee")
            one = tl.dot(a2, b2.T, one, input_precision="ieee")
            two = tl.dot(a1, b0.T, two, input_precision="ieee")
            two = tl.dot(a2, b1.T, two, input_precision="ieee")
            two = tl.dot(a3, b2.T, two, input_precision="ieee")
    return one, two
