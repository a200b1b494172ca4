"""Measures of pictures against values known beforehand."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vr_trt.bench.picture_measures import (
    HIGHEST_PSNR,
    Motion,
    change,
    colour_difference,
    psnr,
    ssim,
)
from vr_trt.bench.rgb_film import Picture01


def texture(seed: int, height: int = 96, width: int = 128) -> Picture01:
    """Smooth random texture [H, W, 3], larger than any motion of the tests."""
    random = np.random.default_rng(seed)
    small = random.random((height // 8 + 2, width // 8 + 2, 3), dtype=np.float32)
    rows, columns = np.arange(height) / 8, np.arange(width) / 8
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = small[top][:, left] * (1 - right) + small[top][:, left + 1] * right
    lower = small[top + 1][:, left] * (1 - right) + small[top + 1][:, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def test_psnr_is_that_of_scikit_image() -> None:
    truth = texture(0)
    ours = truth + np.float32(0.02) * texture(1)
    assert psnr(ours, truth) == pytest.approx(
        peak_signal_noise_ratio(truth, ours, data_range=1.0), abs=1e-3
    )
    assert psnr(truth, truth) == HIGHEST_PSNR
    assert psnr(2 * ours - 1, 2 * truth - 1, peak=2.0) == pytest.approx(psnr(ours, truth))


def test_what_is_not_a_number_has_no_psnr() -> None:
    broken = texture(0)
    broken[3, 5, 1] = np.nan
    assert np.isnan(psnr(broken, texture(0)))


def test_ssim_falls_with_blur_more_than_with_brightness() -> None:
    truth = texture(0)
    moved = [truth, np.roll(truth, 4, 0), np.roll(truth, 4, 1), np.roll(truth, -4, 1)]
    blurred = np.stack(moved).mean(0, dtype=np.float32)
    brighter = truth + np.float32(np.sqrt(np.mean(np.square(blurred - truth))))  # the same PSNR
    assert psnr(brighter, truth) == pytest.approx(psnr(blurred, truth), abs=0.01)
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(blurred, truth) < ssim(brighter, truth) < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (10, 10), (11, 30)])
def test_small_pictures_have_an_ssim(size: tuple[int, int]) -> None:
    truth = texture(0)[: size[0], : size[1]]
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(1 - truth, truth) < 0.9


def test_a_colour_difference_that_is_known() -> None:
    """Grey levels differ in lightness alone: L* of 0.5 and 0.6 in sRGB is 53.39 and 63.22."""
    grey = [np.full((4, 4, 3), level, np.float32) for level in (0.5, 0.6)]
    assert colour_difference(grey[0], grey[0]) == 0
    assert colour_difference(grey[1], grey[0]) == pytest.approx(9.0, abs=0.5)


def test_what_moves_with_the_guide_does_not_flicker() -> None:
    film = texture(0)
    before, now = film[:, :-3], film[:, 3:]  # three columns to the left
    motion = Motion(before, now)
    assert motion.seen[:, 8:-8].mean() > 0.95
    still = motion.flicker(before, now)
    noise = np.random.default_rng(2).normal(0, 0.05, before.shape).astype(np.float32)
    assert still < 2
    assert motion.flicker(before, now + noise) == pytest.approx(255 * 0.05, rel=0.25)
    assert change(now, before) > 2 * still


def test_a_cut_is_no_flicker() -> None:
    """Hardly a pixel of the new shot is the old one's: those that look so change little."""
    before, now = texture(0), 1 - 0.5 * texture(3)
    motion = Motion(before, now)
    assert motion.seen.mean() < 0.5
    assert motion.flicker(before, now) < 255 * 0.04
