"""sRGB pictures in CIELAB and back, as tensor arithmetic that exports (IEC 61966-2-1, CIE 15).

Shapes: pictures [F, 3, H, W]; sRGB in 0..1; L* in 0..100, a* and b* about -100..100; white is D65.
"""

import torch
from torch import Tensor, nn

# Primaries of BT.709 and D65 white: linear RGB to XYZ (IEC 61966-2-1).
_XYZ_OF_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_KNEE = 6 / 29  # of CIELAB's curve: a cube root above its cube, a straight line below


class CieLab(nn.Module):
    """Both ways between sRGB and CIELAB."""

    to_white: Tensor  # [3, 3]: linear RGB to XYZ, each as a share of white's
    from_white: Tensor

    def __init__(self) -> None:
        super().__init__()
        xyz = torch.tensor(_XYZ_OF_RGB, dtype=torch.float64)
        to_white = xyz / xyz.sum(1, keepdim=True)
        self.register_buffer("to_white", to_white.float(), persistent=False)
        self.register_buffer("from_white", to_white.inverse().float(), persistent=False)

    def of_srgb(self, rgb: Tensor) -> Tensor:
        """CIELAB of sRGB in 0..1."""
        linear = torch.where(
            rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0.04).pow(2.4), rgb / 12.92
        )
        shares = _channels(self.to_white, linear)
        # Clamped where the line serves, so that no branch leaves its domain.
        x, y, z = torch.where(
            shares > _KNEE**3,
            shares.clamp(min=_KNEE**3).pow(1 / 3),
            shares / (3 * _KNEE**2) + 4 / 29,
        ).split(1, dim=1)
        return torch.cat((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)

    def to_srgb(self, lab: Tensor) -> Tensor:
        """sRGB of CIELAB, clipped to 0..1 where a colour lies outside of the gamut."""
        lightness, a, b = lab.split(1, dim=1)
        y = (lightness + 16) / 116
        shares = torch.cat((y + a / 500, y, y - b / 200), dim=1)
        shares = torch.where(shares > _KNEE, shares**3, 3 * _KNEE**2 * (shares - 4 / 29))
        linear = _channels(self.from_white, shares).clamp(0, 1)
        return torch.where(
            linear > 0.0031308,
            1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055,
            12.92 * linear,
        )


def _channels(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix` [3, 3] times the channels of x [F, 3, H, W]."""
    return (matrix @ x.flatten(2)).reshape(x.shape)
