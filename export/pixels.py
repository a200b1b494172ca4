"""The pixels' way into the networks and out of them, as modules that are exported like networks.

Shapes: F frames; H W source luma; h w source or output chroma; Ho Wo output; Hp Wp padded canvas.
Planes hold code values, uint8 or uint16; pictures for the networks are float32 in -1..1.
Everything that depends on the video (matrix, range, siting, sizes) is an input that the host
computes once (`vr_trt.kernels.resample` makes the resampling matrices), so one graph serves all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vr_trt.export.colour_fix import ColourFix, colour_fix
from vr_trt.kernels.detail import PUBLISHED_DETAIL

Planes = tuple[Tensor, Tensor, Tensor]


class Resample(nn.Module):
    """A separable resampling of `x` [..., H, W] by `rows` [H', H] and `cols` [W, W']."""

    def forward(self, x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return rows @ x @ cols


class ColourMatrix(nn.Module):
    """M[:, :3]·x + M[:, 3] for M [3, 4] and x [..., 3, pixels]."""

    def forward(self, x: Tensor, matrix: Tensor) -> Tensor:
        return matrix[:, :3] @ x + matrix[:, 3:]


class Crop(nn.Module):
    """Top left [F, 3, height, width] of a canvas [1, 3, F, Hp, Wp]."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        # narrow, as a slice would trace into the smaller of the two sizes
        return x.squeeze(0).narrow(2, 0, height).narrow(3, 0, width).transpose(0, 1)


class Quantise(nn.Module):
    """Code values [F, H, W] to integers: floor(x + threshold), within the limits.

    Planes smaller than `dither` use its top left.
    """

    def __init__(self, depth: torch.dtype) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor, dither: Tensor, limits: Tensor) -> Tensor:
        _, height, width = x.shape
        codes = (x + dither.narrow(0, 0, height).narrow(1, 0, width)).floor()
        return codes.clamp(limits[0], limits[1]).to(self.depth)


class ToModel(nn.Module):
    """YUV planes → RGB → bicubic resize and padding → -1..1 (spec §7.1, 7.2, 7.4).

    RGB sources pass the planes r, g, b and a diagonal `to_rgb`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.colour = ColourMatrix()
        self.resize = Resample()

    def forward(
        self,
        y: Tensor,  # [F, H, W]
        u: Tensor,  # [F, H, W]
        v: Tensor,  # [F, H, W]
        to_rgb: Tensor,  # [3, 4]: rgb in 0..1 = M[:, :3]·(y, u, v) + M[:, 3]
        rows: Tensor,  # [Hp, H]
        cols: Tensor,  # [W, Wp]
    ) -> Tensor:  # [1, 3, F, Hp, Wp]
        codes = torch.stack((y.float(), u.float(), v.float()))  # [3, F, H, W]
        rgb = self.colour(codes.flatten(1), to_rgb).clamp(0, 1).reshape(codes.shape)
        x: Tensor = self.resize(rgb, rows, cols).clamp(0, 1)
        return (x * 2 - 1)[None]


class ToModelSub(ToModel):
    """`ToModel` for planes whose chroma is subsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.chroma = Resample()

    def forward(  # type: ignore[override]
        self,
        y: Tensor,  # [F, H, W]
        u: Tensor,  # [F, h, w]
        v: Tensor,  # [F, h, w]
        to_rgb: Tensor,  # [3, 4]
        rows: Tensor,  # [Hp, H]
        cols: Tensor,  # [W, Wp]
        chroma_rows: Tensor,  # [H, h]
        chroma_cols: Tensor,  # [w, W]
    ) -> Tensor:  # [1, 3, F, Hp, Wp]
        u = self.chroma(u.float(), chroma_rows, chroma_cols)
        v = self.chroma(v.float(), chroma_rows, chroma_cols)
        return super().forward(y, u, v, to_rgb, rows, cols)


class ToVideo(nn.Module):
    """Crop → colour correction → 0..1 → YUV → dither → planes (spec §7.9, 7.10).

    The crop's size is that of `dither`; a threshold of 0.5 everywhere rounds to nearest.
    `depth` is the planes' type, torch.uint8 or torch.uint16; `detail` as in `kernels.detail`.
    """

    def __init__(
        self, fix: ColourFix, depth: torch.dtype, detail: Sequence[float] = PUBLISHED_DETAIL
    ) -> None:
        super().__init__()
        self.crop = Crop()
        self.fix = colour_fix(fix, detail)
        self.colour = ColourMatrix()
        self.quantise = Quantise(depth)

    def forward(
        self,
        x: Tensor,  # [1, 3, F, Hp, Wp]
        reference: Tensor,  # [1, 3, F, Hp, Wp], what ToModel gave for these frames
        from_rgb: Tensor,  # [3, 4]: code values = M[:, :3]·(r, g, b in 0..1) + M[:, 3]
        dither: Tensor,  # [Ho, Wo] in (0, 1)
        limits: Tensor,  # [2] lowest and highest code
    ) -> Planes:  # 3 x [F, Ho, Wo]
        y, u, v = self.codes(x, reference, from_rgb, dither)
        return (
            self.quantise(y, dither, limits),
            self.quantise(u, dither, limits),
            self.quantise(v, dither, limits),
        )

    def codes(self, x: Tensor, reference: Tensor, from_rgb: Tensor, dither: Tensor) -> Planes:
        """Corrected code values, not yet integers: 3 x [F, Ho, Wo]; arguments as in `forward`."""
        x = self.crop(x, *dither.shape)  # [F, 3, Ho, Wo]
        x = self.fix(x, self.crop(reference, *dither.shape))
        rgb = (x * 0.5 + 0.5).clamp(0, 1)
        y, u, v = self.colour(rgb.flatten(2), from_rgb).reshape(rgb.shape).unbind(1)
        return y, u, v


class ToVideoSub(ToVideo):
    """`ToVideo` for planes whose chroma is subsampled."""

    def __init__(
        self, fix: ColourFix, depth: torch.dtype, detail: Sequence[float] = PUBLISHED_DETAIL
    ) -> None:
        super().__init__(fix, depth, detail)
        self.chroma = Resample()

    def forward(  # type: ignore[override]
        self,
        x: Tensor,  # [1, 3, F, Hp, Wp]
        reference: Tensor,  # [1, 3, F, Hp, Wp]
        from_rgb: Tensor,  # [3, 4]
        dither: Tensor,  # [Ho, Wo]
        limits: Tensor,  # [2]
        chroma_rows: Tensor,  # [h, Ho]
        chroma_cols: Tensor,  # [Wo, w]
    ) -> Planes:  # [F, Ho, Wo], 2 x [F, h, w]
        y, u, v = self.codes(x, reference, from_rgb, dither)
        return (
            self.quantise(y, dither, limits),
            self.quantise(self.chroma(u, chroma_rows, chroma_cols), dither, limits),
            self.quantise(self.chroma(v, chroma_rows, chroma_cols), dither, limits),
        )
