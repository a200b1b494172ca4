"""bf16 and E4M3 in the corrected interpreter against PyTorch; run by test_interpreter."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from tests.kernel_runs import FLOATS, poisoned
from triton.tools.tensor_descriptor import TensorDescriptor

E4M3 = torch.float8_e4m3fn


@triton.jit
def convert_kernel(source, to, ITEMS: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, ITEMS)
    tl.store(to + i, tl.load(source + i).to(to.dtype.element_ty))


def converted(source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    room = torch.empty(len(source), dtype=dtype)
    convert_kernel[(1,)](source, room, len(source))
    return room


def all_of(dtype: torch.dtype) -> torch.Tensor:
    """Every number of 16 bits, NaN and subnormal too; of fp32 each bf16 and what lies about it."""
    bits = torch.arange(1 << 16, dtype=torch.int32)
    if dtype != torch.float32:
        return bits.to(torch.int16).view(dtype)
    whole = bits << 16  # half a step of bf16 is bit 15
    near = [whole + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
    return torch.cat([*near, whole, whole]).view(torch.float32)


def the_same(ours: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(
        ours.float().signbit() & ~ours.isnan(), wanted.float().signbit() & ~wanted.isnan()
    )


@pytest.mark.parametrize("to", FLOATS, ids=str)
@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_every_number_is_converted_to_the_nearest_even(
    source: torch.dtype, to: torch.dtype
) -> None:
    numbers = all_of(source)
    the_same(converted(numbers, to), numbers.to(to))


@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_codes_are_those_of_pytorch(source: torch.dtype) -> None:
    """Up to E4M3's largest, as the kernels limit what they convert."""
    numbers = all_of(source)
    numbers = torch.where(numbers.abs() <= 448, numbers, 1)
    the_same(converted(numbers, E4M3).float(), numbers.to(E4M3).float())


@pytest.mark.parametrize("to", FLOATS, ids=str)
def test_codes_become_numbers(to: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(E4M3)
    the_same(converted(codes, to), codes.to(to))


def test_whole_numbers_become_bf16_and_back() -> None:
    whole = torch.arange(-(1 << 12), 1 << 12, dtype=torch.int32)
    the_same(converted(whole, torch.bfloat16), whole.bfloat16())
    assert torch.equal(converted(whole.bfloat16(), torch.int32), whole.bfloat16().int())


@triton.jit
def product_kernel(a, b, start, out, N: tl.constexpr, DESCRIPTORS: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    if DESCRIPTORS:
        x, y = a.load([0, 0]), b.load([0, 0])
    else:
        x, y = tl.load(a + at), tl.load(b + at)
    tl.store(out + at, tl.dot(x, y.T, tl.load(start + at), input_precision="ieee"))


@pytest.mark.parametrize("descriptors", [False, True], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, E4M3], ids=str)
def test_products_are_added_in_fp32(dtype: torch.dtype, descriptors: bool) -> None:
    random = torch.Generator().manual_seed(0)
    a, b, start = (torch.randn(64, 64, generator=random) for _ in range(3))
    a, b = a.to(dtype), b.to(dtype)
    sources: tuple[Any, Any] = a, b
    if descriptors:
        sources = tuple(TensorDescriptor.from_tensor(x, [64, 64]) for x in (a, b))
    out = poisoned(64, 64, dtype=torch.float32)
    product_kernel[(1,)](*sources, start, out, 64, descriptors)
    exact = a.double() @ b.double().T + start
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)


@triton.jit
def arithmetic_kernel(a, b, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, N)
    x, y = tl.load(a + i), tl.load(b + i, i < N - 1, other=0.5)
    tl.store(out + i, x + y)
    tl.store(out + N + i, x * y)
    tl.store(out + 2 * N + i, tl.maximum(x, y))
    tl.store(out + 3 * N + i, tl.where(x < y, -x, tl.abs(y)))
    tl.store(out + 4 * N + i, tl.zeros([N], tl.bfloat16) + tl.max(x, 0))
    tl.store(out + 5 * N + i, tl.sum(x.to(tl.float32), 0).to(tl.bfloat16))


def test_bf16_is_added_compared_and_selected_as_numbers() -> None:
    random = torch.Generator().manual_seed(1)
    a, b = (torch.randn(64, generator=random).bfloat16() for _ in range(2))
    out = poisoned(6, 64, dtype=torch.bfloat16)
    arithmetic_kernel[(1,)](a, b, out, 64)
    b[-1] = 0.5  # what the mask left out
    rows = (
        a + b,
        a * b,
        a.maximum(b),
        (-a).where(a < b, b.abs()),
        a.max(),
        a.float().sum().bfloat16(),
    )
    for ours, wanted in zip(out, rows, strict=True):
        the_same(ours, wanted.expand(64))
