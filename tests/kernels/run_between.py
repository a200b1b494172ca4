"""The kernels between the stages against their references; run by test_between."""

import pytest
import torch
from tests.kernel_runs import DEVICE

from vr_trt.kernels.between import (
    BLOCK,
    blend_kernel,
    blend_reference,
    convert_kernel,
    convert_reference,
)

KINDS = (torch.float32, torch.float16, torch.bfloat16)
# Rows and columns: one item, none over, one over a block.
SIZES = [(1, 1), (3, 7), (2, BLOCK), (3, BLOCK + 1)]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("to", KINDS, ids=str)
@pytest.mark.parametrize("source", KINDS, ids=str)
def test_rows_of_a_larger_tensor_are_converted(
    source: torch.dtype, to: torch.dtype, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(rows * columns)
    values = torch.randn(rows, columns + 5, generator=generator).to(DEVICE, source)
    out = torch.full((rows, columns + 3), torch.nan, device=DEVICE).to(to)
    convert_kernel[(-(-columns // BLOCK), rows)](
        out, columns + 3, values, columns + 5, columns, BLOCK=BLOCK
    )
    expected = torch.full_like(out, torch.nan)
    convert_reference(expected[:, :columns], values[:, :columns])
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def test_code_values_become_floats() -> None:
    codes = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).to(DEVICE)
    floats = torch.full((1 << 16,), torch.nan, device=DEVICE)
    convert_kernel[(1 << 6, 1)](floats, 1, codes, 1, 1 << 16, BLOCK=BLOCK)
    assert floats.tolist() == list(range(1 << 16))


def test_whole_floats_become_code_values() -> None:
    floats = torch.arange(1 << 16, device=DEVICE).float()
    codes = torch.zeros(1 << 16, dtype=torch.uint16, device=DEVICE)
    convert_kernel[(1 << 6, 1)](codes, 1, floats, 1, 1 << 16, BLOCK=BLOCK)
    assert codes.int().tolist() == list(range(1 << 16))


@pytest.mark.parametrize("items", [1, BLOCK, BLOCK + 1])
def test_blending_rounds_as_the_host_does(items: int) -> None:
    generator = torch.Generator().manual_seed(items)
    older, newer = torch.randn(2, items, generator=generator).to(DEVICE)
    out = torch.full((items + 4,), torch.nan, device=DEVICE)
    share = float(torch.tensor(1 / 3, dtype=torch.float32))
    apart = {"enable_fp_fusion": False}  # as the PTX that ships is compiled
    blend_kernel[(-(-items // BLOCK),)](out, older, newer, share, items, BLOCK=BLOCK, **apart)
    expected = torch.empty_like(older)
    # A scalar tensor: Python's own number would take part in double precision.
    blend_reference(expected, older, newer, torch.tensor(share, device=DEVICE))  # type: ignore[arg-type]
    torch.testing.assert_close(out[:items], expected, rtol=0, atol=0)
    assert out[items:].isnan().all()
