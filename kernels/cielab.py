"""sRGB in CIELAB and back, sample by sample, inside a kernel (IEC 61966-2-1, CIE 15; D65).

The matrices lie on the device as `AXES` [2, 3, 3]: linear RGB to XYZ, each as a share of white's,
and back. Powers are exp2 and log2, which the chip has.
"""

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray

# Primaries of BT.709 and D65 white: linear RGB to XYZ (IEC 61966-2-1).
_XYZ_OF_RGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_TO_WHITE = _XYZ_OF_RGB / _XYZ_OF_RGB.sum(1, keepdims=True)
AXES: NDArray[np.float32] = np.stack([_TO_WHITE, np.linalg.inv(_TO_WHITE)]).astype(np.float32)
_KNEE = tl.constexpr(6 / 29)  # of CIELAB's curve: a cube root above its cube, a line below


@triton.jit
def unsigned(value):  # type: ignore[no-untyped-def]
    """-1..1, as the networks have it, to 0..1."""
    return tl.clamp(value * 0.5 + 0.5, 0.0, 1.0)


@triton.jit
def lab_of_srgb(axes, red, green, blue):  # type: ignore[no-untyped-def]
    """L*, a*, b* of sRGB in 0..1."""
    red, green, blue = _linear(red), _linear(green), _linear(blue)
    x = _root(_mixed(axes, red, green, blue))
    y = _root(_mixed(axes + 3, red, green, blue))
    z = _root(_mixed(axes + 6, red, green, blue))
    return 116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)


@triton.jit
def srgb_of_lab(axes, lightness, a, b):  # type: ignore[no-untyped-def]
    """sRGB, clipped to 0..1 where a colour lies outside of the gamut."""
    y = (lightness + 16.0) / 116.0
    x, y, z = _cube(y + a / 500.0), _cube(y), _cube(y - b / 200.0)
    red = _gamma(_mixed(axes + 9, x, y, z))
    green = _gamma(_mixed(axes + 12, x, y, z))
    blue = _gamma(_mixed(axes + 15, x, y, z))
    return red, green, blue


@triton.jit
def _mixed(row, first, second, third):  # type: ignore[no-untyped-def]
    """One row of a matrix [3, 3] times three channels."""
    return tl.load(row) * first + tl.load(row + 1) * second + tl.load(row + 2) * third


@triton.jit
def _linear(value):  # type: ignore[no-untyped-def]
    """Light of a code in 0..1; clamped where the line serves, so that no branch leaves its domain."""
    curve = tl.exp2(2.4 * tl.log2(tl.maximum((value + 0.055) / 1.055, 0.04)))
    return tl.where(value > 0.04045, curve, value / 12.92)


@triton.jit
def _gamma(value):  # type: ignore[no-untyped-def]
    """The code of light, clipped to 0..1."""
    value = tl.clamp(value, 0.0, 1.0)
    curve = 1.055 * tl.exp2(tl.log2(tl.maximum(value, 0.0031308)) / 2.4) - 0.055
    return tl.where(value > 0.0031308, curve, 12.92 * value)


@triton.jit
def _root(share):  # type: ignore[no-untyped-def]
    above: tl.constexpr = _KNEE * _KNEE * _KNEE
    root = tl.exp2(tl.log2(tl.maximum(share, above)) / 3.0)
    return tl.where(share > above, root, share / (3.0 * _KNEE * _KNEE) + 4.0 / 29.0)


@triton.jit
def _cube(root):  # type: ignore[no-untyped-def]
    line = 3.0 * _KNEE * _KNEE * (root - 4.0 / 29.0)
    return tl.where(root > _KNEE, root * root * root, line)
