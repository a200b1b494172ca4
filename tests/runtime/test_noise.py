"""Noise by (seed, latent frame)."""

import numpy as np
import pytest

from vr_trt.errors import UsageError
from vr_trt.runtime.noise import check_seed, latent_noise, window_noise


def test_a_window_is_made_of_its_latents() -> None:
    window = window_noise(7, 3, 4, (6, 5))
    assert window.shape == (1, 16, 4, 6, 5) and window.dtype == np.float32
    for i in range(4):
        np.testing.assert_array_equal(window[:, :, i : i + 1], latent_noise(7, 3 + i, 6, 5))


def test_a_wider_latent_has_noise_of_its_width() -> None:
    wide = window_noise(7, 3, 2, (6, 5), 48)
    assert wide.shape == (1, 48, 2, 6, 5)
    assert len(np.unique(wide)) == wide.size


def test_seeds_and_latents_have_streams_of_their_own() -> None:
    streams = [latent_noise(seed, i, 8, 8) for seed in (0, 1, 2**64 - 1) for i in (0, 1, 2)]
    for i, one in enumerate(streams):
        for other in streams[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.15


def test_it_is_standard_normal() -> None:
    noise = latent_noise(1, 0, 64, 64)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_recorded_values() -> None:
    """A changed generator would change every restored film: these were recorded once."""
    np.testing.assert_allclose(
        latent_noise(42, 5, 2, 2)[0, 0, 0].ravel(), RECORDED, rtol=0, atol=1e-7
    )


RECORDED = [-0.25133100152015686, -0.6597299575805664, 0.7255331873893738, -1.3153367042541504]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        check_seed(seed)
