"""The colours' moments against their reference and the graphs' modules; see kernel_runs."""

import pytest
import torch
from tests.kernel_runs import DEVICE, poisoned
from tests.pixel_cases import uniform

from vr_trt.export.cielab import CieLab
from vr_trt.export.colour_fix import AdaIn, Lab
from vr_trt.kernels.colour_match import Axes, ColourMatch, lab_reference, match_reference

# One sample; one row; several tiles with ragged ends: frames, H, W.
SIZES = [(1, 1, 1), (2, 1, 20), (2, 9, 300), (1, 33, 70)]
SMALL = {"ROWS": 4, "COLUMNS": 64, "num_warps": 1, "num_stages": 1}
BOTH: tuple[Axes, ...] = ("adain", "lab")


def matched(
    restored: torch.Tensor, reference: torch.Tensor, axes: Axes, size: tuple[int, int]
) -> torch.Tensor:
    match = ColourMatch(axes, *size, DEVICE, SMALL)
    frames = restored.shape[1]
    out = poisoned(frames, 3, 2, dtype=torch.float32)
    room = poisoned(2, frames, match.tiles, 3, 3, dtype=torch.float32)
    assert match(restored, reference, out, room) is out
    return out


@pytest.mark.parametrize("axes", BOTH)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_equals_reference(size: tuple[int, int, int], axes: Axes) -> None:
    restored = 0.3 * uniform(-1, 1, 3, *size, seed=1) + 0.6  # a mean that is no small thing
    reference = uniform(-1, 1, 3, *size, seed=2)
    wanted = match_reference(restored, reference, axes)
    ours = matched(restored, reference, axes, size[1:])
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("axes", BOTH)
def test_reference_is_that_of_the_graphs_module(axes: Axes) -> None:
    restored, reference = (uniform(-1, 1, 3, 2, 11, 13, seed=s) for s in (3, 4))
    table = match_reference(restored, reference, axes).transpose(0, 1)[..., None, None]
    a, b = restored.transpose(0, 1), reference.transpose(0, 1)
    if axes == "adain":
        wanted = AdaIn()(a, b)
        ours = restored * table[:, :, 0] + table[:, :, 1]
    else:
        wanted = Lab().to(DEVICE)(a, b)
        lab = lab_reference(restored * 0.5 + 0.5) * table[:, :, 0] + table[:, :, 1]
        ours = CieLab().to(DEVICE).to_srgb(lab.transpose(0, 1)).transpose(0, 1) * 2 - 1
    torch.testing.assert_close(ours.transpose(0, 1), wanted, rtol=0, atol=5e-5)


def test_channels_may_lie_far_apart() -> None:
    """Twice as many elements as 31 bits count; the memory between is never touched."""
    step, (height, width) = 2**30, (3, 20)
    memory = torch.empty(2 * step + height * width, dtype=torch.float16, device=DEVICE)
    restored = memory.as_strided((3, 1, height, width), (step, height * width, width, 1))
    restored.copy_(uniform(-1, 1, 3, 1, height, width, seed=7))
    reference = uniform(-1, 1, 3, 1, height, width, seed=8)
    wanted = match_reference(restored, reference, "adain")
    ours = matched(restored, reference, "adain", (height, width))
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_only_the_crop_counts(dtype: torch.dtype) -> None:
    restored, reference = (uniform(-1, 1, 3, 2, 16, 80, seed=s).to(dtype) for s in (5, 6))
    wanted = match_reference(restored[..., :10, :70], reference[..., :10, :70], "adain")
    restored[..., 10:, :] = reference[..., 70:] = torch.nan
    ours = matched(restored, reference, "adain", (10, 70))
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
