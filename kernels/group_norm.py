"""Group norm of single frames in three steps: moments, scale and shift, and their application.

Whoever writes a picture leaves behind the mean and the squared deviations of each of its tiles
(`conv3d` does so on its way out; for any other picture, `moments` does). A small kernel merges them,
in the same order every time, into a scale and a shift. These are applied, with SiLU, by `activate` or
in the prologue of a 1x1x1 `conv3d`. The merge is Chan's: deviations are taken around means, never as
a difference of squares, so that fp32 suffices. Source: network spec §6.

In this order: what they compute, in plain PyTorch; the Triton kernels; their launches from Python.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-6
_PIXELS = 64  # that a program of `moments` or `activate` reads at a time
_TILES = 256  # whose moments a program merges at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Of every frame, tile and channel: mean, and sum of squared deviations from it."""

    values: "Tensor"  # [F, tiles, 2, C] fp32
    counts: "Tensor"  # [F, tiles] fp32: pixels of the tile


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """A group norm's weights."""

    weight: "Tensor"  # [C] fp32
    bias: "Tensor"  # [C] fp32
    groups: int
    eps: float = EPS


def scale_shift_reference(x: "Tensor", norm: Norm) -> "Tensor":  # [F, H, W, C] -> [F, 2, C]
    """What group norm multiplies each channel of each frame by, and adds, in fp32 or wider."""
    import torch

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    grouped = wide.flatten(1, 2).unflatten(-1, (norm.groups, -1))  # F, H W, groups, channels
    variance, mean = torch.var_mean(grouped, (1, 3), correction=0)
    per_group = len(norm.weight) // norm.groups
    rstd = (variance + norm.eps).rsqrt().repeat_interleave(per_group, 1)
    scale = norm.weight * rstd
    return torch.stack([scale, norm.bias - mean.repeat_interleave(per_group, 1) * scale], 1)


def activate_reference(x: "Tensor", scale_shift: "Tensor", silu: bool = True) -> "Tensor":
    """x * scale + shift [F, 2, C], then SiLU, in fp32 or wider; rounded once to x's dtype."""
    import torch

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * scale_shift[:, 0, None, None] + scale_shift[:, 1, None, None]
    return (torch.nn.functional.silu(wide) if silu else wide).to(x.dtype)


@triton.jit
def moments_kernel(  # type: ignore[no-untyped-def]
    x,  # [F, H, W, C], of any strides but the last
    values,  # [F, tiles, 2, C]
    counts,  # [F, tiles]
    pixels,  # H W
    width,
    x_frame,
    x_row,
    x_column,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Each program: one tile of one frame, and CHANNELS channels."""
    tile, frame = tl.program_id(0), tl.program_id(1)
    slot = frame * tl.num_programs(0) + tile
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (c < C)[None, :]
    at = frame.to(tl.int64) * x_frame + pixel // width * x_row + pixel % width * x_column
    x_PC = tl.load(x + at[:, None] + c[None, :], inside, other=0.0).to(tl.float32)
    count = tl.minimum(pixels - tile * PIXELS, PIXELS).to(tl.float32)
    mean = tl.sum(x_PC, 0) / count
    away = tl.where(inside, x_PC - mean[None, :], 0.0)
    tl.store(values + slot * 2 * C + c, mean, c < C)
    tl.store(values + slot * 2 * C + C + c, tl.sum(away * away, 0), c < C)
    tl.store(counts + slot, count)


@triton.jit
def scale_shift_kernel(  # type: ignore[no-untyped-def]
    values,  # [F, tiles, 2, C]
    counts,  # [F, tiles]
    weight,  # [C]
    bias,  # [C]
    out,  # [F, 2, C]
    tiles,
    C: tl.constexpr,
    PER_GROUP: tl.constexpr,
    EPS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,  # of a group, up to a power of two
):
    """Each program: one group of one frame. First the mean, then what deviates from it."""
    group, frame = tl.program_id(0), tl.program_id(1)
    j = tl.arange(0, CHANNELS)
    c = group * PER_GROUP + j
    i = tl.arange(0, TILES)
    total = tl.zeros([TILES, CHANNELS], tl.float32)
    pixels = tl.zeros([TILES], tl.float32)
    for first in range(0, tiles, TILES):
        slot = frame * tiles + first + i
        inside = (first + i < tiles)[:, None] & (j < PER_GROUP)[None, :]
        count = tl.load(counts + slot, first + i < tiles, other=0.0)
        pixels += count
        mean_TC = tl.load(values + (slot * 2 * C)[:, None] + c[None, :], inside, other=0.0)
        total += mean_TC * count[:, None]
    elements = tl.sum(pixels, 0) * PER_GROUP
    mean = tl.sum(tl.sum(total, 1), 0) / elements
    deviation = tl.zeros([TILES, CHANNELS], tl.float32)
    for first in range(0, tiles, TILES):
        slot = frame * tiles + first + i
        inside = (first + i < tiles)[:, None] & (j < PER_GROUP)[None, :]
        count = tl.load(counts + slot, first + i < tiles, other=0.0)
        at = values + (slot * 2 * C)[:, None] + c[None, :]
        away = tl.load(at, inside, other=0.0) - mean
        within = tl.load(at + C, inside, other=0.0)
        deviation += tl.where(inside, within + away * away * count[:, None], 0.0)
    variance = tl.sum(tl.sum(deviation, 1), 0) / elements
    scale = tl.load(weight + c, j < PER_GROUP, other=0.0) * tl.rsqrt(variance + EPS)
    shift = tl.load(bias + c, j < PER_GROUP, other=0.0) - mean * scale
    tl.store(out + frame * 2 * C + c, scale, j < PER_GROUP)
    tl.store(out + frame * 2 * C + C + c, shift, j < PER_GROUP)


@triton.jit
def activate_kernel(  # type: ignore[no-untyped-def]
    x,  # [F, H, W, C], of any strides but the last
    scale_shift,  # [F, 2, C]
    y,  # [F, H, W, C], of any strides but the last
    per_step,  # y is the result times this: 1, or one over the scale of fp8
    pixels,  # H W
    width,
    x_frame,
    x_row,
    x_column,
    y_frame,
    y_row,
    y_column,
    C: tl.constexpr,
    SILU: tl.constexpr,
    LARGEST: tl.constexpr,  # number of y's dtype, at which it saturates; 0: it does not
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Each program: PIXELS pixels of one frame, and CHANNELS channels; one read and one write."""
    frame = tl.program_id(1)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (c < C)[None, :]
    row, column = pixel // width, pixel % width
    scale = tl.load(scale_shift + frame * 2 * C + c, c < C, other=0.0)
    shift = tl.load(scale_shift + frame * 2 * C + C + c, c < C, other=0.0)
    at_x = frame.to(tl.int64) * x_frame + row * x_row + column * x_column
    z = tl.load(x + at_x[:, None] + c[None, :], inside, other=0.0).to(tl.float32)
    z = z * scale[None, :] + shift[None, :]
    z = z * tl.sigmoid(z) if SILU else z
    if LARGEST:
        z = tl.clamp(z * per_step, -LARGEST, LARGEST)
    at_y = frame.to(tl.int64) * y_frame + row * y_row + column * y_column
    tl.store(y + at_y[:, None] + c[None, :], z.to(y.dtype.element_ty), inside)


def empty_moments(frames: int, tiles: int, channels: int, like: "Tensor") -> Moments:
    """Room for the moments of a picture, on the device of `like`."""
    import torch

    return Moments(
        values=torch.empty(frames, tiles, 2, channels, dtype=torch.float32, device=like.device),
        counts=torch.empty(frames, tiles, dtype=torch.float32, device=like.device),
    )


def moments(x: "Tensor") -> Moments:  # [F, H, W, C]
    """The moments of a picture that is there already."""
    frames, height, width, channels = x.shape
    _check_picture(x)
    tiles = triton.cdiv(height * width, _PIXELS)
    out = empty_moments(frames, tiles, channels, x)
    block = _channel_block(channels)
    grid = (tiles, frames, triton.cdiv(channels, block))
    moments_kernel[grid](
        x, out.values, out.counts, height * width, width, *x.stride()[:3],
        C=channels, PIXELS=_PIXELS, CHANNELS=block, num_warps=4,
    )  # fmt: skip
    return out


def scale_shift(
    moments: Moments, norm: Norm, out: "Tensor | None" = None
) -> "Tensor":  # [F, 2, C] fp32
    """What group norm multiplies each channel of each frame by, and adds.

    A picture may have more channels than the norm, to fill words up: `out` stays as it is there.
    """
    import torch

    frames, tiles, _, channels = moments.values.shape
    normed = len(norm.weight)
    if normed % norm.groups or normed > channels:
        raise ValueError(f"{norm.groups} groups of {normed} do not fit {channels}")
    if out is None:
        out = torch.zeros(frames, 2, channels, dtype=torch.float32, device=norm.weight.device)
    if out.shape != (frames, 2, channels) or not out.is_contiguous():
        raise ValueError(f"scale and shift of {frames} frames do not fit in {tuple(out.shape)}")
    scale_shift_kernel[norm.groups, frames](
        moments.values, moments.counts, norm.weight, norm.bias, out, tiles,
        **scale_shift_constants(channels, norm),
    )  # fmt: skip
    return out


def scale_shift_constants(channels: int, norm: Norm) -> dict[str, Any]:
    """The kernel's compile-time arguments for pictures of so many channels."""
    per_group = len(norm.weight) // norm.groups
    return {
        "C": channels, "PER_GROUP": per_group, "EPS": norm.eps, "TILES": _TILES,
        "CHANNELS": triton.next_power_of_2(per_group), "num_warps": 4,
    }  # fmt: skip


def activate(
    x: "Tensor",  # [F, H, W, C] fp16, bf16 or fp32; the last stride is 1
    scale_shift: "Tensor",  # [F, 2, C] fp32
    out: "Tensor",  # like x in shape; of any dtype, E4M3 too
    *,
    silu: bool = True,
    step: float = 1.0,
) -> "Tensor":
    """`activate_reference` over `step` into `out`; E4M3 saturates."""
    import torch

    frames, height, width, channels = x.shape
    if out.shape != x.shape or scale_shift.shape != (frames, 2, channels):
        raise ValueError(
            f"activate: {tuple(x.shape)}, {tuple(scale_shift.shape)}, {tuple(out.shape)}"
        )
    _check_picture(x)
    _check_picture(out)
    if step != 1.0 and out.dtype != torch.float8_e4m3fn:
        raise ValueError(f"activate: only fp8 has a step, not {out.dtype}")
    constants = activate_constants(out, silu)
    blocks = triton.cdiv(channels, constants["CHANNELS"])
    activate_kernel[triton.cdiv(height * width, _PIXELS), frames, blocks](
        x, scale_shift, out, 1 / step, height * width, width, *x.stride()[:3], *out.stride()[:3],
        **constants,
    )  # fmt: skip
    return out


def activate_constants(out: "Tensor", silu: bool = True) -> dict[str, Any]:
    """The kernel's compile-time arguments for pictures like `out`."""
    import torch

    return {
        "C": out.shape[3], "SILU": silu, "LARGEST": 448 if out.dtype == torch.float8_e4m3fn else 0,
        "PIXELS": _PIXELS, "CHANNELS": _channel_block(out.shape[3]), "num_warps": 4,
    }  # fmt: skip


def _channel_block(channels: int) -> int:
    return min(triton.next_power_of_2(channels), 128)


def _check_picture(x: "Tensor") -> None:
    if x.ndim != 4 or x.stride(3) != 1:
        raise ValueError(f"a picture is [F, H, W, C], its channels dense: {x.shape}, {x.stride()}")
    if x.stride(0) >= 2**31:
        raise ValueError(f"a frame of 2^31 elements or more cannot be addressed: {tuple(x.shape)}")
