"""Colour corrections: the restored picture takes its colours back from the network's input.

Shapes: F frames, H W pixels; pictures are [F, 3, H, W], each frame on its own (spec §7.9).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vr_trt.export.cielab import CieLab
from vr_trt.kernels.detail import BANDS, PUBLISHED_DETAIL

ColourFix = Literal["wavelet", "lab", "adain", "none"]
COLOUR_FIXES: tuple[ColourFix, ...] = ("wavelet", "lab", "adain", "none")

_DILATIONS = tuple(2**band for band in range(BANDS))
_VARIANCE_FLOOR = 1e-5


class Wavelet(nn.Module):
    """Detail of the restored picture over the low frequencies of the reference (spec §7.9).

    Blurs by the outer product of [1, 2, 1]/4, dilated 1 to 16, edges repeated, cut a picture into
    bands, the finest first. `detail` is the restored picture's share of each (`kernels.detail`).
    One 3x3 depthwise convolution a band: ONNX Runtime's CPU runs it in less time than two
    one-dimensional passes or shifted additions.
    """

    kernel: Tensor

    def __init__(self, detail: Sequence[float] = PUBLISHED_DETAIL) -> None:
        super().__init__()
        self.detail = tuple(detail)
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (taps[:, None] * taps).repeat(3, 1, 1, 1), persistent=False)

    def forward(
        self,
        restored: Tensor,  # [F, 3, H, W]
        reference: Tensor,  # [F, 3, H, W]
    ) -> Tensor:
        # The blurs are linear, so those of the difference will do.
        below = restored - reference
        out = restored if self.detail[0] == 1 else reference + self.detail[0] * below
        for dilation, share, next_share in zip(
            _DILATIONS, self.detail, (*self.detail[1:], 0.0), strict=False
        ):
            below = self._blur(below, dilation)
            if share != next_share:
                step = share - next_share
                out = out - (below if step == 1 else step * below)
        return out

    def _blur(self, x: Tensor, dilation: int) -> Tensor:
        """x [F, 3, H, W], any size from 1x1, without the finest detail left."""
        x = F.pad(x, (dilation,) * 4, mode="replicate")
        return F.conv2d(x, self.kernel, dilation=dilation, groups=3)


class AdaIn(nn.Module):
    """Mean and standard deviation of every channel of every frame matched to the reference's."""

    def forward(
        self,
        restored: Tensor,  # [F, 3, H, W]
        reference: Tensor,  # [F, 3, H, W]
    ) -> Tensor:
        mean, deviation = _statistics(restored)
        wanted_mean, wanted_deviation = _statistics(reference)
        return (restored - mean) * (wanted_deviation / deviation) + wanted_mean


class Lab(nn.Module):
    """Mean and standard deviation in CIELAB matched to the reference's, frame by frame.

    As `AdaIn`, in axes that do not mix lightness with colour. Source: Reinhard et al., "Color
    transfer between images", 2001, with CIELAB in place of their axes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.axes = CieLab()
        self.match = AdaIn()

    def forward(
        self,
        restored: Tensor,  # [F, 3, H, W] in -1..1
        reference: Tensor,  # [F, 3, H, W] in -1..1
    ) -> Tensor:
        ours, theirs = (
            self.axes.of_srgb((x * 0.5 + 0.5).clamp(0, 1)) for x in (restored, reference)
        )
        return self.axes.to_srgb(self.match(ours, theirs)) * 2 - 1


class Unchanged(nn.Module):
    """No correction."""

    def forward(self, restored: Tensor, reference: Tensor) -> Tensor:
        return restored


def colour_fix(name: ColourFix, detail: Sequence[float] = PUBLISHED_DETAIL) -> nn.Module:
    """Return the correction of that name: (restored, reference) [F, 3, H, W] → [F, 3, H, W].

    `detail` is for the wavelet.
    """
    if name == "wavelet":
        return Wavelet(detail)
    modules: dict[ColourFix, type[nn.Module]] = {
        "lab": Lab,
        "adain": AdaIn,
        "none": Unchanged,
    }
    return modules[name]()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per frame and channel; the unbiased variance, lifted by 1e-5."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    squares = (x - mean).square().sum(dim=(2, 3), keepdim=True)
    others = torch.sym_max(x.shape[2] * x.shape[3] - 1, 1)  # a single pixel varies by nothing
    return mean, (squares / others + _VARIANCE_FLOOR).sqrt()
