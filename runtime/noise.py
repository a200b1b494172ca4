"""The generator's noise: a function of the seed and the latent frame alone."""

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import UsageError

LATENT_CHANNELS = 16  # of the published VAE
SEED_LIMIT = 2**64


def check_seed(seed: int) -> int:
    """`seed` itself; UsageError unless it is a 64-bit unsigned number."""
    if not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
        raise UsageError(f"seed {seed} is out of range: choose one from 0 to {SEED_LIMIT - 1}")
    return seed


def latent_noise(
    seed: int, index: int, height: int, width: int, channels: int = LATENT_CHANNELS
) -> NDArray[np.float32]:
    """Standard normal noise of latent frame `index`, [1, channels, 1, h, w] float32.

    Keyed by (seed, index), so it does not depend on how a film is cut into windows, resumed or
    spread over devices. Philox is counter based: each key is a stream of its own.
    """
    generator = np.random.Generator(np.random.Philox(key=(index << 64) | seed))
    return generator.standard_normal((1, channels, 1, height, width), dtype=np.float32)


def window_noise(
    seed: int, start: int, latents: int, sides: tuple[int, int], channels: int = LATENT_CHANNELS
) -> NDArray[np.float32]:
    """Noise of latent frames start … start + latents − 1, [1, channels, T, *sides] float32."""
    frames = [latent_noise(seed, start + i, *sides, channels) for i in range(latents)]
    return np.concatenate(frames, axis=2)
