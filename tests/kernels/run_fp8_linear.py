"""The linear in E4M3 against its reference; run by test_fp8_linear, see kernel_runs."""

import pytest
import torch
from tests.kernel_runs import DEVICE, poisoned
from torch import Tensor

from vr_trt.kernels.fp8_linear import fp8_linear, fp8_linear_reference

FP8 = torch.float8_e4m3fn
# Rows, outputs, inputs: one of each least; odd; whole tiles; more than one tile each way, ragged.
SIZES = [(1, 1, 16), (3, 17, 48), (128, 128, 128), (131, 260, 272), (300, 16, 1040)]
# In fp32 what sm_90 loses within SUM_K elements of K shows: it keeps about 14 bits of E4M3's sums.
STEP = {
    torch.float32: 1e-5 if DEVICE == "cpu" else 5e-4,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def given(
    M: int, N: int, K: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Codes over all of their range, and scales that differ from row to row by powers of two."""
    generator = torch.Generator().manual_seed(M + N + K)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight = 60 * normal(M, K), 60 * normal(N, K)
    codes, weights = (t.clamp(-448, 448).to(FP8).to(DEVICE) for t in (x, weight))
    of_x, of_weight = (
        torch.exp2(torch.randint(-9, -3, (n,), generator=generator).float()).to(DEVICE)
        for n in (M, N)
    )
    return codes, weights, of_x, of_weight, normal(N).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", STEP, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_equals_its_reference(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    tensors = given(*size, dtype)
    out = poisoned(*size[:2], dtype=dtype)
    assert fp8_linear(*tensors, out) is out
    wanted = fp8_linear_reference(*tensors).float()
    error = (out.float() - wanted).square().mean().sqrt()
    assert error <= STEP[dtype] * wanted.square().mean().sqrt()


def test_sums_beyond_sixteen_bits_are_scaled_before_they_are_rounded() -> None:
    """448 * 448 * 64 is 12.8 million, far beyond fp16; the result is not."""
    ones = torch.full((2, 64), 448.0).to(FP8).to(DEVICE)
    scale = torch.full((2,), 2.0**-10, device=DEVICE)
    out = poisoned(2, 2, dtype=torch.float16)
    fp8_linear(ones, ones, scale, scale, torch.zeros(2, dtype=torch.float16, device=DEVICE), out)
    assert out.float().flatten().tolist() == pytest.approx([448 * 448 * 64 / 2**20] * 4, rel=1e-3)


def test_no_rows_at_all() -> None:
    tensors = given(0, 16, 16, torch.float16)
    assert fp8_linear(*tensors, torch.empty(0, 16, device=DEVICE).half()).shape == (0, 16)
