"""Frame attention against its plain reference; run by test_frame_attention."""

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, error_ratio, poisoned

from vr_trt.kernels.frame_attention import frame_attention, frame_attention_reference

# Of our rounding error to PyTorch's own in the same dtype; fp32 is for the interpreter.
WORST_RATIO = {
    torch.float32: 2.0 if DEVICE == "cpu" else 30.0,
    torch.float16: 1.2,
    torch.bfloat16: 1.2,
}
# Frames, rows, columns (one position, odd, a tile, more than one), width (odd ones too).
SIZES = [(1, 1, 1, 16), (3, 7, 1, 24), (2, 4, 8, 16), (1, 11, 7, 72), (2, 5, 9, 512)]


def numbers(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_equals_reference(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    frames, rows, columns, width = size
    qkv = numbers(frames, rows, columns, 3 * width, dtype=dtype)
    room = poisoned(frames, rows + 2, columns + 2, width, dtype=dtype)
    out = room[:, 1:-1, 1:-1]
    assert frame_attention(qkv, out) is out
    exact, plain = (frame_attention_reference(qkv.to(d)) for d in (torch.float64, dtype))
    assert error_ratio(out, plain, exact) < WORST_RATIO[dtype]
    assert room[:, 0].isnan().all() and room[:, :, -1].isnan().all()


def test_sharp_scores_neither_overflow_nor_mix() -> None:
    """A score of hundreds for one key: its value alone comes out."""
    qkv = numbers(1, 8, 5, 96, dtype=torch.float32)
    qkv[..., :64] *= 30.0
    out = torch.empty(1, 8, 5, 32, device=DEVICE)
    wanted = frame_attention_reference(qkv.double())
    torch.testing.assert_close(frame_attention(qkv, out).double(), wanted, rtol=1e-3, atol=1e-3)


def test_frames_do_not_see_each_other() -> None:
    qkv = numbers(2, 3, 3, 48, dtype=torch.float32)
    qkv[1] = torch.nan
    out = frame_attention(qkv, torch.empty(2, 3, 3, 16, device=DEVICE))
    assert not out[0].isnan().any() and out[1].isnan().all()
