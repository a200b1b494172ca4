"""The glue between the generator's linears against its references; see kernel_runs."""

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, poisoned
from torch import Tensor

from vr_trt.kernels.activation import Activation, activate, activation_reference
from vr_trt.kernels.fp8 import quantised_reference
from vr_trt.kernels.residual_norm import residual_norm, residual_norm_reference

# Rows: one, odd. Columns: one, odd, a power of two, more than a tile of the activation.
SIZES = [(1, 1), (3, 7), (5, 128), (2, 1025), (3, 2560)]
# A step of the dtype, relative.
STEP = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
FP8 = torch.float8_e4m3fn


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (2 * torch.randn(*shape, generator=generator)).to(DEVICE, dtype)


def poison(*shape: int, dtype: torch.dtype) -> Tensor:
    return poisoned(*shape, dtype=torch.float32).to(dtype)


def near(ours: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(ours, wanted, rtol=STEP[dtype], atol=STEP[dtype] / 10)


def same_codes(ours: Tensor, wanted: Tensor) -> None:
    """Equal but where a difference of the last bit before rounding goes the other way."""
    assert ours.dtype == wanted.dtype == FP8 and not ours.isnan().any()
    step = 0.125 * wanted.float().abs().clamp_min(2**-6)
    different = ours.float() != wanted.float()
    assert not ((ours.float() - wanted.float()).abs() > step).any()
    assert different.float().mean() <= 0.01


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["norm", "add", "gate"])
def test_residual_norm(form: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    x = normal(*size, dtype=dtype)
    y = None if form == "norm" else normal(*size, dtype=dtype, seed=1)
    gate = normal(size[1], dtype=dtype, seed=2) if form == "gate" else None
    wanted_x, _ = residual_norm_reference(x, y, gate)
    out = poison(*size, dtype=dtype)
    assert residual_norm(x, y, gate, out=out) is out
    near(x, wanted_x, dtype)  # by a fused step it may round the other way, and its norm with it
    near(out, residual_norm_reference(x)[1], dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["swiglu", "gelu"])
def test_activation(kind: Activation, size: tuple[int, int], dtype: torch.dtype) -> None:
    rows, columns = size
    hidden = normal(rows, columns * (2 if kind == "swiglu" else 1), dtype=dtype)
    out = poison(rows, columns, dtype=dtype)
    assert activate(hidden, kind, out=out) is out
    near(out, activation_reference(hidden, kind), dtype)


@pytest.mark.parametrize("kind", ["swiglu", "gelu"])
def test_activations_of_large_values_are_finite(kind: Activation) -> None:
    hidden = torch.tensor([[-3e4, 3e4, -100.0, 100.0]], device=DEVICE).half()
    out = activate(hidden, kind)
    near(out, activation_reference(hidden, kind), torch.float16)
    assert out.isfinite().any()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_both_end_in_fp8_where_a_scale_is_given(size: tuple[int, int], dtype: torch.dtype) -> None:
    scale = torch.tensor([0.013], device=DEVICE)
    x, y = normal(*size, dtype=dtype), normal(*size, dtype=dtype, seed=1)
    wanted = residual_norm_reference(x, y, scale=scale)[1]
    same_codes(residual_norm(x, y, scale=scale, out=poison(*size, dtype=FP8)), wanted)
    hidden = normal(size[0], 2 * size[1], dtype=dtype)
    wanted = activation_reference(hidden, "swiglu", scale)
    same_codes(activate(hidden, "swiglu", scale), wanted)
    by_row = torch.linspace(0.01, 0.05, size[0], device=DEVICE)
    wanted = residual_norm_reference(x, scale=by_row)[1]
    same_codes(residual_norm(x, scale=by_row, out=poison(*size, dtype=FP8)), wanted)
    wanted = activation_reference(hidden, "swiglu", by_row)
    same_codes(activate(hidden, "swiglu", by_row), wanted)


def test_what_is_too_large_for_fp8_becomes_its_largest() -> None:
    x = torch.tensor([[1.0, -1.0, 0.5, 1e-4]], device=DEVICE)
    small = torch.tensor([1e-4], device=DEVICE)
    codes = residual_norm(x, scale=small).float()
    assert codes[0, 0] == 448 and codes[0, 1] == -448 and codes[0, 3] != 0
    assert quantised_reference(x * 1e9, small).float().abs().max() == 448


def test_a_row_with_nan_spoils_no_other() -> None:
    x = normal(4, 16, dtype=torch.float32)
    x[1, 5] = torch.nan
    out = residual_norm(x)
    assert out[1].isnan().all() and not out[[0, 2, 3]].isnan().any()


def test_without_anything_to_add_x_stays() -> None:
    x = normal(3, 9, dtype=torch.float16)
    before = x.clone()
    residual_norm(x)
    assert torch.equal(x, before)


def test_nothing_at_all() -> None:
    assert residual_norm(normal(0, 8, dtype=torch.float16)).shape == (0, 8)
    assert activate(normal(0, 8, dtype=torch.float16), "swiglu").shape == (0, 4)
