"""The diffusion arithmetic: schedule, condition, one step, many steps with guidance.

Latents are channel-last [T, h, w, 16] and already scaled. Source: network spec §5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

T_MAX = 1000.0

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # video [T, h, w, 33], text, timestep


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """SeedVR2 is one step without guidance; SeedVR v1 is 50 steps, 6.5 and 0.1."""

    steps: int = 1
    guidance: float = 1.0
    condition_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.condition_noise <= 1:
            raise ValueError(f"sampling needs at least one step and noise in 0..1: {self}")


def timesteps(steps: int) -> list[float]:
    """1000 down to 1000 / steps, evenly."""
    return [T_MAX * (1 - k / steps) for k in range(steps)]


def shifted_timestep(timestep: float, shape: tuple[int, int, int]) -> float:
    """The noise level of the condition latent, shifted for a clip of latent `shape` (t, h, w)."""
    frames, pixels = (shape[0] - 1) * 4 + 1, 64 * shape[1] * shape[2]
    if frames > 1:
        least, most = 256**2 * 37, 1280 * 720 * 145
        shift = 1 + (pixels * frames - least) * (5 - 1) / (most - least)
    else:
        shift = 1 + (pixels - 256**2) * (3.2 - 1) / (1024**2 - 256**2)
    u = timestep / T_MAX
    return T_MAX * shift * u / (1 + (shift - 1) * u)


def condition(latent: Tensor, noise: Tensor | None, level: float) -> Tensor:
    """The generator's condition [T, h, w, 17]: the low-quality latent, noised, and a mask of ones.

    `level` in 0..1 is the condition noise before the shift; 0 leaves the latent as it is.
    """
    if level:
        if noise is None:
            raise ValueError("a noised condition needs its noise")
        # The reference hands its shift (h, w, c) in the place of (t, h, w), and v1's
        # checkpoints were sampled so.
        _, h, w, c = latent.shape
        tau = shifted_timestep(T_MAX * level, (h, w, c)) / T_MAX
        latent = (1 - tau) * latent + tau * noise
    return torch.cat([latent, torch.ones_like(latent[..., :1])], -1)


def sample(
    velocity: Velocity,
    noise: Tensor,
    condition: Tensor,
    text: tuple[Tensor, Tensor | None],
    sampling: Sampling,
) -> Tensor:
    """Go from noise [T, h, w, 16] to a latent of the same shape, by Euler steps.

    `text` is the positive and the negative embedding; the latter is used with guidance only.
    """
    positive, negative = text
    if sampling.guidance != 1 and negative is None:
        raise ValueError("guidance needs the negative text embedding")
    x = noise
    levels = timesteps(sampling.steps)
    for now, then in zip(levels, [*levels[1:], 0.0], strict=True):
        t = torch.tensor(now, device=x.device)
        video = torch.cat([x, condition], -1)
        v = velocity(video, positive, t)
        if sampling.guidance != 1 and negative is not None:
            v_negative = velocity(video, negative, t)
            v = v_negative + sampling.guidance * (v - v_negative)
        x = x + (then - now) / T_MAX * v
    return x
