"""Group norm against its plain reference; run by test_group_norm, see `tests.kernel_runs`."""

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, poisoned

from vr_trt.kernels.group_norm import (
    Moments,
    Norm,
    activate,
    activate_reference,
    moments,
    scale_shift,
    scale_shift_reference,
)

# Frames, rows, columns, channels, groups: one pixel, odd, more than a tile; 1, 3, 4, 16 a group.
SIZES = [(1, 1, 1, 8, 2), (2, 5, 7, 24, 8), (2, 9, 13, 12, 12), (1, 31, 17, 160, 2)]
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 8e-3}


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def norm_of(channels: int, groups: int) -> Norm:
    return Norm(weight=1 + numbers(channels, seed=1), bias=numbers(channels, seed=2), groups=groups)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_scale_and_shift(size: tuple[int, ...], dtype: torch.dtype, offset: float) -> None:
    """Also of a mean a thousand times the deviation, where a difference of squares is noise."""
    *shape, groups = size
    room = poisoned(shape[0], shape[1] + 2, shape[2] + 3, shape[3], dtype=dtype)
    x = room[:, 1:-1, 2:-1]
    x.copy_(numbers(*shape, dtype=torch.float32) + offset)
    norm = norm_of(shape[3], groups)
    wanted = scale_shift_reference(x.double(), norm)
    out = poisoned(shape[0], 2, shape[3], dtype=torch.float32)
    ours = scale_shift(moments(x), norm, out)
    if shape[1] * shape[2] > 1:  # of one pixel and one channel nothing deviates
        error = (ours - wanted).abs() / wanted.abs().amax((0, 2), keepdim=True)
        assert error.max() < 1e-4


def test_the_merge_is_the_same_every_time() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 300, 2, 16, generator=generator).to(DEVICE)
    counts = torch.randint(0, 65, (2, 300), generator=generator).float().to(DEVICE)
    norm = norm_of(16, 4)
    first, again = (scale_shift(Moments(values=values, counts=counts), norm) for _ in range(2))
    assert torch.equal(first, again)
    weights = counts / counts.sum(1, keepdim=True)  # the law of total variance, in fp64
    grouped = values.double().unflatten(-1, (4, 4))
    mean = (grouped[:, :, 0] * weights[..., None, None]).sum(1).mean(-1)
    within = grouped[:, :, 1].sum((1, 3)) / counts.sum(1, keepdim=True) / 4
    away = (grouped[:, :, 0] - mean[:, None, :, None]).square() * weights[..., None, None]
    variance = within + away.sum(1).mean(-1)
    wanted = norm.weight.double() * (variance + norm.eps).rsqrt().repeat_interleave(4, 1)
    torch.testing.assert_close(first[:, 0].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES[1:3], ids=str)
def test_activation(size: tuple[int, ...], dtype: torch.dtype, silu: bool) -> None:
    *shape, _ = size
    x, table = numbers(*shape, dtype=dtype), numbers(shape[0], 2, shape[3], seed=3)
    room = poisoned(shape[0], shape[1] + 2, shape[2] + 2, shape[3], dtype=dtype)
    out = room[:, 1:-1, 1:-1]
    assert activate(x, table, out, silu=silu) is out
    wanted = activate_reference(x, table, silu)
    torch.testing.assert_close(out, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    assert room[:, 0].isnan().all() and room[:, :, -1].isnan().all()


def test_fp8_is_scaled_and_saturates() -> None:
    """Of numbers that E4M3 has: how the others are rounded is the chip's affair."""
    step = 0.25
    numbers_of_e4m3 = numbers(2, 3, 5, 16).to(torch.float8_e4m3fn).float()
    numbers_of_e4m3[0, 0, 0] = 1e4
    table = torch.stack([torch.full((2, 16), step), torch.zeros(2, 16)], 1).to(DEVICE)
    out = torch.zeros(numbers_of_e4m3.shape, dtype=torch.float8_e4m3fn, device=DEVICE)
    activate(numbers_of_e4m3, table, out, silu=False, step=step)
    assert torch.equal(out.float(), numbers_of_e4m3.clamp(-448, 448))
