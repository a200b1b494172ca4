"""E4M3, the 8-bit float of matrix units: rounding, and scales that every backend takes exactly.

Every scale is a power of two. A float loses little by that (the steps between its values grow with
them), and the same graph then gives the same numbers in fp16, bf16 and fp32: scaling is exact.

A weight's scale has two parts, one for the whole and a factor for each output channel, because
TensorRT-RTX takes only a scale of the whole into its product. A scale by channel it applies to the
product's fp16 result, which overflows before it is scaled: products of values up to 448 add up.

Dimension key: N output channels, K input channels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
# Scales that fp16 holds in full, and their reciprocals. Values that would want a smaller one use
# less of E4M3's range than there is: no loss, down to 2^-20.
LEAST_EXPONENT, MOST_EXPONENT = -14, 14
LEAST_FACTOR = -8  # a channel this much quieter than the middle one gains nothing from more
CELL = 16  # matrix units take channels by so many


def suits(weight: Tensor) -> bool:
    """Whether matrix units can multiply a weight [N, K] in E4M3."""
    return all(size % CELL == 0 for size in weight.shape)


def scale_exponent(amax: float) -> int:
    """The least e for which amax <= 448 * 2**e, within what fp16 holds."""
    if amax <= 0:
        return LEAST_EXPONENT
    mantissa, exponent = math.frexp(amax / E4M3_MAX)
    return min(max(exponent - (mantissa == 0.5), LEAST_EXPONENT), MOST_EXPONENT)


def to_e4m3(x: Tensor) -> Tensor:
    """`x` rounded to nearest, ties to even, as float8_e4m3fn; what is too large becomes ±448."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)


def rounded(x: Tensor, exponent: int) -> Tensor:
    """`x` as E4M3 with the scale 2**exponent holds it, in its own dtype: quantised and back."""
    scale = 2.0**exponent
    return to_e4m3(x / scale).to(x.dtype) * scale


@dataclass(frozen=True, slots=True)
class Fp8Weight:
    """A linear's weight as values * 2**exponent * factors[:, None]."""

    values: Tensor  # [N, K] float8_e4m3fn
    exponent: int
    factors: Tensor  # [N] float32, powers of two, 1 for the channel in the middle


def weight_scales(weight: Tensor) -> tuple[int, Tensor]:
    """The exponent of the scale of a weight [N, K], and its channels' factors [N] float32."""
    amax = weight.abs().amax(1).double()
    mantissas, exponents = torch.frexp(amax / E4M3_MAX)
    exponents = exponents - (mantissas == 0.5).int()
    some = exponents[amax > 0]
    middle = int(some.median()) if len(some) else LEAST_EXPONENT
    exponent = min(max(middle, LEAST_EXPONENT), MOST_EXPONENT)
    exponents = torch.where(amax > 0, exponents, exponent)
    factors = torch.exp2((exponents - exponent).clamp(min=LEAST_FACTOR).double())
    return exponent, factors.float()


def quantise_weight(weight: Tensor) -> Fp8Weight:
    """A linear's weight [N, K] in E4M3, one scale a channel."""
    exponent, factors = weight_scales(weight)
    scaled = weight.float() / (2.0**exponent * factors[:, None])
    return Fp8Weight(to_e4m3(scaled), exponent, factors)
