"""E4M3 to the bit, and scales that lose nothing."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.export.fp8 import (
    E4M3_MAX,
    LEAST_EXPONENT,
    LEAST_FACTOR,
    MOST_EXPONENT,
    Fp8Weight,
    quantise_weight,
    rounded,
    scale_exponent,
    suits,
    to_e4m3,
    weight_scales,
)


def every_half() -> torch.Tensor:
    """Every finite fp16 number."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(torch.float16)
    return numbers[torch.isfinite(numbers)]


def by_the_book(x: torch.Tensor) -> np.ndarray:
    """ml_dtypes' rounding, which gives NaN above 448: saturated before."""
    limited = np.clip(x.numpy().astype(np.float32), -E4M3_MAX, E4M3_MAX)
    return limited.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)


def test_rounding_is_that_of_the_format() -> None:
    x = every_half()
    assert np.array_equal(to_e4m3(x).float().numpy(), by_the_book(x))
    between = torch.linspace(-500, 500, 300_001)
    assert np.array_equal(to_e4m3(between).float().numpy(), by_the_book(between))


def test_rounding_with_a_scale_is_exact_in_every_precision() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 3
    for dtype in (torch.float16, torch.bfloat16):
        given = x.to(dtype)
        for exponent in (-9, -6, 3):
            wanted = by_the_book(given.float() * 2.0**-exponent) * 2.0**exponent
            found = rounded(given, exponent)
            assert found.dtype == dtype and np.array_equal(found.float().numpy(), wanted)


@given(st.floats(2.0**LEAST_EXPONENT * 448, 2.0**MOST_EXPONENT * 448))
def test_the_scale_is_the_least_that_holds_the_largest(amax: float) -> None:
    exponent = scale_exponent(amax)
    assert amax <= 448 * 2.0**exponent
    assert exponent == LEAST_EXPONENT or amax > 448 * 2.0 ** (exponent - 1)


@pytest.mark.parametrize(("amax", "exponent"), [(448.0, 0), (448.1, 1), (0.0, -14), (1e-9, -14)])
def test_scales_at_the_edges(amax: float, exponent: int) -> None:
    assert scale_exponent(amax) == exponent


def wide(weight: Fp8Weight) -> torch.Tensor:
    return weight.values.float() * 2.0**weight.exponent * weight.factors[:, None]


def test_every_channel_has_its_own_scale() -> None:
    random = torch.Generator().manual_seed(1)
    sizes = torch.exp2(torch.arange(32.0) / 4 - 4)  # eight octaves
    weight = torch.randn(32, 64, generator=random) * sizes[:, None]
    exponent, factors = weight_scales(weight)
    assert torch.equal(factors.log2(), factors.log2().round()) and len(factors.unique()) > 4
    scaled = weight.abs().amax(1) / (2.0**exponent * factors)
    assert (scaled <= 448).all() and (scaled > 224).all()
    found = quantise_weight(weight)
    error = (wide(found) - weight).abs()
    assert (error <= weight.abs() * 2**-4 + 2**-10 * factors[:, None] * 2.0**exponent).all()
    one_scale = rounded(weight, scale_exponent(float(weight.abs().max())))
    quiet = slice(0, 4)
    assert error[quiet].square().mean() < (one_scale - weight)[quiet].square().mean()


def test_the_middle_channel_has_no_factor() -> None:
    # Products are made in fp16 before the factors: they must be of the size of what comes out.
    weight = torch.tensor([[0.1], [0.1], [0.1], [200.0], [1e-4]]).expand(-1, 16)
    exponent, factors = weight_scales(weight)
    assert factors[:3].tolist() == [1, 1, 1] and exponent == scale_exponent(0.1)
    assert factors[3] == 2.0 ** (scale_exponent(200.0) - exponent)
    assert factors[4] == 2.0**LEAST_FACTOR


def test_silent_channels_and_weights() -> None:
    weight = torch.zeros(4, 16)
    assert torch.equal(wide(quantise_weight(weight)), weight)
    weight[1] = 0.5
    found = quantise_weight(weight)
    assert torch.equal(wide(found), weight) and found.factors.tolist() == [1, 1, 1, 1]


@given(st.integers(-20, 8), st.integers(0, 2**32 - 1))
def test_a_scaled_weight_is_quantised_alike(power: int, seed: int) -> None:
    """Nothing but the scale depends on the size, as far as scales go."""
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)).abs() + 0.01
    small, large = quantise_weight(weight * 2.0**power), quantise_weight(weight)
    if large.exponent + power >= LEAST_EXPONENT:
        assert torch.equal(small.values.float(), large.values.float())
        assert small.exponent == large.exponent + power
    else:
        assert small.exponent == LEAST_EXPONENT
    assert math.isfinite(float(wide(small).sum()))


def test_what_suits() -> None:
    assert suits(torch.empty(48, 16)) and not suits(torch.empty(48, 24))
    assert not suits(torch.empty(8, 16))
