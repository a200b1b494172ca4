"""What the convolution's kernel is made of, piece by piece; see `kernels.conv3d`."""

import triton
import triton.language as tl


@triton.jit
def program_of(frames, TILES_N: tl.constexpr, PHASES: tl.constexpr, BLOCK_N: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's tile of pixels, frame, phase and first channel.

    Programs that run together share pixels: all channels of a tile, then its later frames.
    """
    tile_m = tl.program_id(0) // TILES_N // frames
    t = tl.program_id(0) // TILES_N % frames
    phase = tl.program_id(0) % TILES_N % PHASES
    first_n = tl.program_id(0) % TILES_N // PHASES * BLOCK_N
    return tile_m, t, phase, first_n


@triton.jit
def pixels_of(  # type: ignore[no-untyped-def]
    source, frame, places, tap, c,
    C: tl.constexpr, BLOCK_K: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Channels from `c` on of what a tap of the picture sees in a frame.

    `places`: elements of a frame and of a row, the first of the run of pixels, their rows and columns.
    `tap`: its row and column. By descriptor it is the run, else the pixels one by one.
    """
    plane, pitch, start, row, column = places
    dh, dw = tap
    if DESCRIPTORS:
        a = source.load([frame * plane + start + dh * pitch + dw, c])
    else:
        k = c + tl.arange(0, BLOCK_K)
        pixel = frame.to(tl.int64) * plane + (row + dh) * pitch + column + dw
        at = source + pixel[:, None] * C + k[None, :]
        if C % BLOCK_K == 0:
            a = tl.load(at)
        else:
            a = tl.load(at, (k < C)[None, :], other=0.0)
    return a


@triton.jit
def weights_of(  # type: ignore[no-untyped-def]
    weight, place, N: tl.constexpr, C: tl.constexpr, ROW: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Some channels of a tap for some outputs of a phase, from rows of ROW numbers.

    `place`: the phase's first output, the first output in it, the tap, its first channel.
    """
    phase, first_n, tap, c = place
    if DESCRIPTORS:
        b = weight.load([phase + first_n, tap * C + c])
    else:
        n, k = first_n + tl.arange(0, BLOCK_N), c + tl.arange(0, BLOCK_K)
        at = weight + (phase + n)[:, None] * ROW + (tap * C + k)[None, :]
        if C % BLOCK_K == 0 and N % BLOCK_N == 0:
            b = tl.load(at)
        else:
            b = tl.load(at, (k < C)[None, :] & (n < N)[:, None], other=0.0)
    return b


@triton.jit
def doubled(row, column, phase, UP_T: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where a phase of a pair of pixels lies in a picture of twice the size.

    A pair and a phase make one output; the outermost half pairs two.
    """
    return 2 * row - 1 + phase // (2 * UP_T), 2 * column - 1 + phase // UP_T % 2


@triton.jit
def normed(a, table, c, seen, C, SILU: tl.constexpr):  # type: ignore[no-untyped-def]
    """Group norm of raw pixels, their channels being `c`, and SiLU.

    Zero lies around the activated picture, not around the raw one.
    """
    scale = tl.load(table + c, c < C, other=0.0)
    shift = tl.load(table + C + c, c < C, other=0.0)
    z = a.to(tl.float32) * scale[None, :] + shift[None, :]
    z = z * tl.sigmoid(z) if SILU else z
    return tl.where(seen[:, None], z, 0.0).to(a.dtype)


@triton.jit
def without_edge(  # type: ignore[no-untyped-def]
    part, edge, n, row, column, height, width,
    N: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Sums without what the taps that lie outside of the picture take away."""
    for tap in tl.static_range(K * K):
        seen = in_picture(row + tap // K, column + tap % K, height, width)
        lost = tl.load(edge + tap * STEP + n, n < N, other=0.0)
        part -= tl.where(seen[:, None], 0.0, lost[None, :])
    return part


@triton.jit
def leave_moments(out, kept, moments, n, N):  # type: ignore[no-untyped-def]
    """Moments of what was stored, taken around the tile's own mean: safe in fp32."""
    value = tl.where(kept[:, None], out.to(tl.float32), 0.0)
    mean = tl.sum(value, 0) / tl.maximum(tl.sum(kept.to(tl.float32), 0), 1.0)
    away = tl.where(kept[:, None], value - mean[None, :], 0.0)
    tl.store(moments + n, mean, n < N)
    tl.store(moments + N + n, tl.sum(away * away, 0), n < N)


@triton.jit
def runs_of_columns(acc, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """`acc` cut into 1, 2 or 4 runs of columns, so that the epilogue needs fewer registers."""
    if PARTS == 1:
        parts = (acc,)
    elif PARTS == 2:
        parts = _halves(acc)
    else:
        low, high = _halves(acc)
        parts = _halves(low) + _halves(high)
    return parts


@triton.jit
def _halves(acc):  # type: ignore[no-untyped-def]
    return acc.reshape(acc.shape[0], 2, acc.shape[1] // 2).permute(0, 2, 1).split()


@triton.jit
def in_picture(row, column, height, width):  # type: ignore[no-untyped-def]
    """Whether places counted from the border's corner lie in the picture."""
    return (row >= 1) & (row <= height) & (column >= 1) & (column <= width)
