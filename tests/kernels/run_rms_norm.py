"""The RMSNorm kernel against its plain reference; run by test_rms_norm, see `tests.kernel_runs`."""

import pytest
import torch
from tests.kernel_runs import DEVICE

from vr_trt.kernels.rms_norm import rms_norm, rms_norm_reference

# Rows that fill no tile, one, more; columns of one element, odd, a power of two, beyond a tile.
SIZES = [(1, 1), (3, 1), (1, 7), (17, 33), (16, 128), (33, 129), (5, 2560), (2, 4099), (3, 8192)]
TOLERANCE = {
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}  # relative, half a step


def numbers(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 10007 + columns)
    return (3 * torch.randn(rows, columns, generator=generator)).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_kernel_equals_reference(rows: int, columns: int, dtype: torch.dtype) -> None:
    x = numbers(rows, columns, dtype)
    # Every element must be written, and nothing beyond the last.
    room = torch.full((rows * columns + 64,), torch.nan, dtype=dtype, device=DEVICE)
    out = room[: rows * columns].view(rows, columns)
    assert rms_norm(x, out=out) is out
    torch.testing.assert_close(out, rms_norm_reference(x), rtol=TOLERANCE[dtype], atol=1e-6)
    assert room[rows * columns :].isnan().all()


def test_large_half_precision_values_do_not_overflow() -> None:
    x = torch.full(
        (2, 64), 30000.0, dtype=torch.float16, device=DEVICE
    )  # whose square is infinite in fp16
    assert rms_norm(x).sub(1).abs().max() < 1e-3


def test_rows_of_zeros_stay_zero() -> None:
    assert rms_norm(torch.zeros(3, 20, device=DEVICE)).eq(0).all()


def test_a_row_with_nan_spoils_no_other() -> None:
    x = numbers(4, 16, torch.float32)
    x[1, 5] = torch.nan
    out = rms_norm(x)
    assert out[1].isnan().all() and not out[[0, 2, 3]].isnan().any()


def test_eps_counts() -> None:
    x = torch.full((1, 8), 1e-3, device=DEVICE)
    torch.testing.assert_close(rms_norm(x, eps=1.0), rms_norm_reference(x, eps=1.0))
    assert rms_norm(x, eps=1.0).abs().max() < 2e-3


def test_in_place_and_empty() -> None:
    x = numbers(6, 50, torch.float32)
    wanted = rms_norm_reference(x)
    torch.testing.assert_close(rms_norm(x, out=x), wanted)
    assert rms_norm(torch.empty(0, 8, device=DEVICE)).shape == (0, 8)
