"""The wavelet's kernel against its reference, the graph's module and golden vectors."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.kernel_runs import DEVICE, poisoned
from tests.pixel_cases import uniform

from vr_trt.export.colour_fix import Wavelet as WaveletModule
from vr_trt.kernels.detail import PUBLISHED_DETAIL
from vr_trt.kernels.wavelet import Wavelet, wavelet_reference

GOLDEN = Path(__file__).parents[1] / "golden" / "colorfix.safetensors"
# The interpreter is slow: few programs, of which some are ragged.
FEW = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 1}
# One sample and shorter than the filter's 63 taps, as tuned; longer, and more than a tile.
SIZES: list[tuple[tuple[int, int, int], dict[str, int] | None]] = [  # frames, H, W
    ((1, 1, 1), None),
    ((2, 1, 20), None),
    ((2, 9, 3), None),
    ((1, 70, 1), FEW),
    ((1, 1, 70), FEW),
    ((1, 3, 130), FEW),
]
TOLERANCE = 2e-6  # of values up to 2, for the order of 63 sums


def correct(
    restored: torch.Tensor,
    reference: torch.Tensor,
    size: tuple[int, int],
    options: dict[str, int] | None = None,
    detail: Sequence[float] = PUBLISHED_DETAIL,
) -> torch.Tensor:
    (height, width), frames = size, restored.shape[1]
    out = poisoned(3, frames, height, width, dtype=torch.float32)
    room = poisoned(3, frames, width, height, dtype=torch.float32)
    assert Wavelet(height, width, DEVICE, options, detail)(restored, reference, out, room) is out
    return out


@pytest.mark.parametrize(("size", "options"), SIZES, ids=str)
def test_kernel_equals_reference_and_module(
    size: tuple[int, int, int], options: dict[str, int] | None
) -> None:
    restored = uniform(-1.1, 1.1, 3, *size, seed=1)
    reference = uniform(-1, 1, 3, *size, seed=2)
    out = correct(restored, reference, size[1:], options)
    torch.testing.assert_close(out, wavelet_reference(restored, reference), rtol=0, atol=TOLERANCE)
    module = WaveletModule().to(DEVICE)(restored.transpose(0, 1), reference.transpose(0, 1))
    torch.testing.assert_close(out, module.transpose(0, 1), rtol=0, atol=2 * TOLERANCE)


@pytest.mark.parametrize("detail", [(1.0,), (1.0, 1.0), (0.5, 0.15, 0.15), (0.0, 1.0)], ids=str)
def test_a_share_of_the_detail_equals_reference_and_module(detail: tuple[float, ...]) -> None:
    restored, reference = (uniform(-1, 1, 3, 2, 9, 12, seed=seed) for seed in (5, 6))
    out = correct(restored, reference, (9, 12), FEW, detail)
    wanted = wavelet_reference(restored, reference, detail)
    torch.testing.assert_close(out, wanted, rtol=0, atol=2 * TOLERANCE)
    module = WaveletModule(detail).to(DEVICE)(restored.transpose(0, 1), reference.transpose(0, 1))
    torch.testing.assert_close(out, module.transpose(0, 1), rtol=0, atol=3 * TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_only_the_crop_counts_and_half_precision_is_read_exactly(dtype: torch.dtype) -> None:
    restored = uniform(-1, 1, 3, 1, 16, 16, seed=3).to(dtype)
    reference = uniform(-1, 1, 3, 1, 16, 16, seed=4).to(dtype)
    wanted = wavelet_reference(restored[..., :10, :13], reference[..., :10, :13])
    restored[..., 10:, :] = reference[..., 13:] = torch.nan
    out = correct(restored, reference, (10, 13))
    torch.testing.assert_close(out, wanted, rtol=0, atol=TOLERANCE)


def test_golden() -> None:
    golden = load_file(GOLDEN)
    content, style, wanted = (golden[name].to(DEVICE) for name in ("content", "style", "wavelet"))
    content, style = (picture.transpose(0, 1).contiguous() for picture in (content, style))
    height, width = content.shape[-2:]
    out = correct(content, style, (height, width), FEW).transpose(0, 1)
    assert (out - wanted).square().mean().sqrt() <= 2e-5 * wanted.square().mean().sqrt()
