from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.color import rgb2lab
from torch import Tensor

from vr_trt.export.cielab import CieLab
from vr_trt.export.colour_fix import COLOUR_FIXES, ColourFix, Wavelet, colour_fix

GOLDEN = Path(__file__).parents[1] / "golden" / "colorfix.safetensors"
TINY = [(1, 1), (1, 2), (7, 1), (2, 2), (3, 5), (17, 33)]


def relative_rms(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def low_by_definition(plane: np.ndarray, bands: int = 5) -> np.ndarray:
    """As many blurs of one plane [H, W], axis by axis, neighbours taken by clamped index."""
    for dilation in (1, 2, 4, 8, 16)[:bands]:
        for axis in (0, 1):
            at = np.arange(plane.shape[axis])
            before, after = (
                plane.take((at + step).clip(0, len(at) - 1), axis) for step in (-dilation, dilation)
            )
            plane = (before + 2 * plane + after) / 4
    return plane


@pytest.mark.parametrize("name", ["wavelet", "adain"])
def test_golden(name: ColourFix) -> None:
    golden = load_file(GOLDEN)
    given = colour_fix(name)(golden["content"], golden["style"])
    assert relative_rms(given, golden[name]) <= 2e-5


@pytest.mark.parametrize("size", TINY)
def test_wavelet_is_its_definition_at_any_size(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    restored, reference = torch.randn((2, 2, 3, *size), generator=generator, dtype=torch.float64)
    given = Wavelet().double()(restored, reference).numpy()
    for frame in range(2):
        for channel in range(3):
            own = restored[frame, channel].numpy()
            other = reference[frame, channel].numpy()
            wanted = own - low_by_definition(own) + low_by_definition(other)
            np.testing.assert_allclose(given[frame, channel], wanted, atol=1e-12)


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_the_wavelet_takes_as_many_bands_as_the_model_makes(bands: int) -> None:
    generator = torch.Generator().manual_seed(3)
    restored, reference = torch.randn((2, 1, 3, 17, 33), generator=generator, dtype=torch.float64)
    given = colour_fix("wavelet", (1.0,) * bands).double()(restored, reference).numpy()
    for channel in range(3):
        own, other = restored[0, channel].numpy(), reference[0, channel].numpy()
        wanted = own - low_by_definition(own, bands) + low_by_definition(other, bands)
        np.testing.assert_allclose(given[0, channel], wanted, atol=1e-12)


@pytest.mark.parametrize("detail", [(0.5, 0.25, 0.25), (0.0, 1.0), (0.3, 0.3, 0.3, 0.3, 0.7)])
def test_shares_of_bands_add_up(detail: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(4)
    restored, reference = torch.randn((2, 1, 3, 17, 33), generator=generator, dtype=torch.float64)
    given = Wavelet(detail).double()(restored, reference).numpy()
    wanted = reference.numpy().copy()
    for channel in range(3):
        more = (restored - reference)[0, channel].numpy()
        for band, share in enumerate(detail):
            finer, coarser = low_by_definition(more, band), low_by_definition(more, band + 1)
            wanted[0, channel] += share * (finer - coarser)
    np.testing.assert_allclose(given, wanted, atol=1e-12)


@pytest.mark.parametrize("size", TINY)
def test_adain_takes_over_mean_and_deviation(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    restored, reference = torch.randn((2, 2, 3, *size), generator=generator)
    reference = 0.3 * reference + 0.2
    given = colour_fix("adain")(restored, reference)
    assert given.isfinite().all()
    torch.testing.assert_close(given.mean((2, 3)), reference.mean((2, 3)), atol=1e-5, rtol=0)
    if size[0] * size[1] > 1:
        wanted = reference.flatten(2).std(2)
        torch.testing.assert_close(given.flatten(2).std(2), wanted, atol=1e-3, rtol=1e-3)


def test_lab_is_that_of_scikit_image() -> None:
    generator = torch.Generator().manual_seed(5)
    rgb = torch.rand((2, 3, 9, 7), generator=generator)
    rgb[0, :, 0, :4] = torch.tensor([0.0, 1.0, 0.003, 0.04])  # black, white, the straight part
    axes = CieLab()
    lab = axes.of_srgb(rgb)
    wanted = rgb2lab(rgb.double().numpy(), channel_axis=1)
    np.testing.assert_allclose(lab.numpy(), wanted, atol=0.02)
    torch.testing.assert_close(axes.to_srgb(lab), rgb, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", TINY)
def test_lab_takes_over_lightness_and_colour(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(6)
    restored, reference = torch.rand((2, 2, 3, *size), generator=generator) - 0.5
    reference = 0.4 * reference + torch.tensor([0.1, 0.0, -0.1])[:, None, None]
    given = colour_fix("lab")(restored, reference)
    assert given.isfinite().all()
    of = [CieLab().of_srgb(x * 0.5 + 0.5).mean((2, 3)) for x in (given, reference, restored)]
    assert (of[0] - of[1]).abs().max() < 0.05 * (of[2] - of[1]).abs().max() + 0.5


@pytest.mark.parametrize("name", COLOUR_FIXES)
def test_frames_do_not_see_each_other(name: ColourFix) -> None:
    generator = torch.Generator().manual_seed(3)
    restored, reference = torch.randn((2, 4, 3, 20, 24), generator=generator)
    fix = colour_fix(name)
    together = fix(restored, reference)
    alone = torch.cat([fix(restored[i : i + 1], reference[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_colour_cast_is_removed_and_detail_stays() -> None:
    generator = torch.Generator().manual_seed(4)
    reference = torch.rand((1, 3, 64, 64), generator=generator)
    cast = torch.tensor([0.2, -0.1, 0.05]).reshape(1, 3, 1, 1)
    for name in ("wavelet", "adain"):
        given = colour_fix(name)(reference + cast, reference)
        torch.testing.assert_close(given, reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(colour_fix("none")(reference + cast, reference), reference + cast)
