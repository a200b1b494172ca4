"""Colours matched by their moments: each channel is given the mean and deviation of a reference's.

`adain` matches red, green and blue, `lab` L*, a* and b*; each frame by itself. Source: network spec
§7.9; Reinhard et al., "Color transfer between images", 2001.

Both pictures are read once for their moments, from which follow a scale and a shift for each channel,
[F, 3, 2]. `kernels.to_video` applies these on its way to planes: no corrected picture is stored.
Moments of a tile are taken around the tile's own mean and combined in a fixed order, so results are
the same bits every time, and safe in fp32.

In this order: what it computes, in plain PyTorch; the Triton kernels; their launches from Python.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import triton
import triton.language as tl

from vr_trt.kernels.checks import check_picture, check_tensor
from vr_trt.kernels.cielab import AXES, lab_of_srgb, unsigned
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Axes = Literal["adain", "lab"]
VARIANCE_FLOOR = 1e-5
_COMBINED = 256  # tiles whose moments the last kernel combines at a time


def match_reference(
    restored: "Tensor",  # [3, F, H, W] in -1..1
    reference: "Tensor",  # [3, F, H, W]
    axes: Axes,
    dtype: "torch.dtype | None" = None,
) -> "Tensor":  # [F, 3, 2] fp32
    """Scale and shift of every channel, computed in `dtype`, or fp64.

    Of a single sample the deviation is that of the floor.
    """
    import torch

    def moments(x: "Tensor") -> "tuple[Tensor, Tensor]":
        wide = x.to(dtype or torch.float64)
        if axes == "lab":
            wide = lab_reference((wide * 0.5 + 0.5).clamp(0, 1))
        wide = wide.flatten(2)  # [3, F, H W]
        mean = wide.mean(2)
        squares = (wide - mean[..., None]).square().sum(2)
        return mean, (squares / max(wide.shape[2] - 1, 1) + VARIANCE_FLOOR).sqrt()

    mean, deviation = moments(restored)
    wanted_mean, wanted_deviation = moments(reference)
    scale = wanted_deviation / deviation
    return torch.stack([scale, wanted_mean - mean * scale], 2).transpose(0, 1).float()


def lab_reference(
    rgb: "Tensor",  # [3, ...] sRGB in 0..1
) -> "Tensor":
    """L*, a*, b* of sRGB, in its dtype."""
    import torch

    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    matrix = torch.from_numpy(AXES[0].astype(np.float64)).to(rgb)
    shares = torch.einsum("ij,j...->i...", matrix, linear)
    knee = 6 / 29
    line = shares / (3 * knee**2) + 4 / 29
    x, y, z = torch.where(shares > knee**3, shares.clamp(min=knee**3).pow(1 / 3), line)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@triton.jit
def colour_moments_kernel(  # type: ignore[no-untyped-def]
    restored, r_channel, r_frame, r_row,  # [3, F, >= H, >= W], pixels side by side
    reference, t_channel, t_frame, t_row,
    axes,  # [2, 3, 3], of cielab
    out,  # [2, F, tiles, 3, 3] fp32: samples, mean, squared deviations
    height, width, tiles,
    LAB: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each program: ROWS x COLUMNS samples of one frame of one of the pictures, three channels."""
    tile = tl.program_id(0)
    frame = tl.program_id(1).to(tl.int64)
    of_reference = tl.program_id(2)
    across = tl.cdiv(width, COLUMNS)
    row = (tile // across * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tile % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = (row < height) & (column < width)
    if of_reference:
        red, green, blue = _samples(
            reference + frame * t_frame + row * t_row + column, t_channel, inside
        )
    else:
        red, green, blue = _samples(
            restored + frame * r_frame + row * r_row + column, r_channel, inside
        )
    if LAB:
        red, green, blue = lab_of_srgb(axes, unsigned(red), unsigned(green), unsigned(blue))
    at = out + ((of_reference * tl.num_programs(1) + frame) * tiles + tile) * 9
    _leave(at, red, inside)
    _leave(at + 3, green, inside)
    _leave(at + 6, blue, inside)


@triton.jit
def _samples(at, channel, inside):  # type: ignore[no-untyped-def]
    return (
        tl.load(at, mask=inside, other=0.0).to(tl.float32),
        tl.load(at + channel, mask=inside, other=0.0).to(tl.float32),
        # Twice `channel` may be more than 32 bits hold; a pointer holds it.
        tl.load(at + channel + channel, mask=inside, other=0.0).to(tl.float32),
    )


@triton.jit
def _leave(at, value, inside):  # type: ignore[no-untyped-def]
    """Count, mean and squared deviations of a tile, at `at`."""
    count = tl.sum(tl.sum(inside.to(tl.float32), 1), 0)
    mean = tl.sum(tl.sum(tl.where(inside, value, 0.0), 1), 0) / count
    away = tl.where(inside, value - mean, 0.0)
    tl.store(at, count)
    tl.store(at + 1, mean)
    tl.store(at + 2, tl.sum(tl.sum(away * away, 1), 0))


@triton.jit
def colour_match_kernel(  # type: ignore[no-untyped-def]
    moments,  # [2, F, tiles, 3, 3]
    out,  # [F, 3, 2]
    tiles,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program: one channel of one frame."""
    frame, channel, frames = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    ours = moments + (frame * tiles * 3 + channel) * 3
    theirs = ours + frames * tiles * 9
    mean, deviation = _combined(ours, tiles, FLOOR, BLOCK)
    wanted_mean, wanted_deviation = _combined(theirs, tiles, FLOOR, BLOCK)
    scale = wanted_deviation / deviation
    tl.store(out + (frame * 3 + channel) * 2, scale)
    tl.store(out + (frame * 3 + channel) * 2 + 1, wanted_mean - mean * scale)


@triton.jit
def _combined(moments, tiles, FLOOR: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean and deviation of a frame's channel from those of its tiles."""
    samples = tl.zeros([BLOCK], tl.float32)
    sums = tl.zeros([BLOCK], tl.float32)
    for first in range(0, tiles, BLOCK):
        inside = first + tl.arange(0, BLOCK) < tiles
        at = moments + (first + tl.arange(0, BLOCK)) * 9
        count = tl.load(at, mask=inside, other=0.0)
        samples += count
        sums += count * tl.load(at + 1, mask=inside, other=0.0)
    total = tl.sum(samples, 0)
    mean = tl.sum(sums, 0) / total
    squares = tl.zeros([BLOCK], tl.float32)
    for first in range(0, tiles, BLOCK):
        inside = first + tl.arange(0, BLOCK) < tiles
        at = moments + (first + tl.arange(0, BLOCK)) * 9
        away = tl.load(at + 1, mask=inside, other=0.0) - mean
        squares += tl.load(at + 2, mask=inside, other=0.0)
        squares += tl.load(at, mask=inside, other=0.0) * tl.where(inside, away * away, 0.0)
    return mean, tl.sqrt(tl.sum(squares, 0) / tl.maximum(total - 1.0, 1.0) + FLOOR)


class ColourMatch:
    """`match_reference` by the kernels, for pictures of one size."""

    def __init__(
        self,
        axes: Axes,
        height: int,
        width: int,
        device: "torch.device | str",
        options: Mapping[str, int] | None = None,  # as in tuned/colour_match.toml
    ) -> None:
        """Put the matrices on the device."""
        import torch

        self._lab, self._size = axes == "lab", (height, width)
        self._options = options or tuned("colour_match", capability_of(torch.device(device)))
        self._axes = torch.from_numpy(AXES).to(device)

    @property
    def tiles(self) -> int:
        """Of one frame."""
        height, width = self._size
        rows, columns = self._options["ROWS"], self._options["COLUMNS"]
        return triton.cdiv(height, rows) * triton.cdiv(width, columns)

    def __call__(
        self,
        restored: "Tensor",  # [3, F, >= H, >= W] fp16, bf16 or fp32; its top left is the picture
        reference: "Tensor",  # [3, F, >= H, >= W]
        out: "Tensor",  # [F, 3, 2] fp32, contiguous
        room: "Tensor",  # [2, F, tiles, 3, 3] fp32, contiguous
    ) -> "Tensor":
        """Fill `out` and return it; TypeError or ValueError for tensors that do not fit."""
        import torch

        (height, width), frames, device = self._size, len(out), restored.device
        check_picture("colour_match: restored", restored, frames, height, width)
        check_picture("colour_match: reference", reference, frames, height, width)
        check_tensor("colour_match: out", out, (frames, 3, 2), torch.float32, device)
        size = (2, frames, self.tiles, 3, 3)
        check_tensor("colour_match: room", room, size, torch.float32, device)
        if frames:
            colour_moments_kernel[(self.tiles, frames, 2)](
                *(restored, *restored.stride()[:3], reference, *reference.stride()[:3]),
                *(self._axes, room, height, width, self.tiles),
                LAB=self._lab,
                **self._options,
            )
            colour_match_kernel[(frames, 3)](
                room, out, self.tiles, FLOOR=VARIANCE_FLOOR, BLOCK=_COMBINED
            )
        return out
