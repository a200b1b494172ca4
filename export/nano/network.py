"""All of nano as one thing to train: the VAE, the one-step generator and its learned text."""

import numpy as np
import torch
from torch import Tensor, nn

from vr_trt.export.colour_fix import Wavelet
from vr_trt.export.config import DETAIL_NANO, GeneratorConfig, VaeConfig
from vr_trt.export.generator import Generator
from vr_trt.export.nano.identity_start import start_identity
from vr_trt.export.nano.linear_start import hold_constants, start_linear
from vr_trt.export.nano.pool import Pool
from vr_trt.export.vae import Upsample, VideoVae, split_moments

TIMESTEP = 1000.0
TEXT_TOKENS = 8


class Restoration(nn.Module):
    """The generator and its learned text."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.generator = Generator(config)
        self.text = nn.Parameter(torch.randn(TEXT_TOKENS, config.text_width))

    def forward(self, noise: Tensor, latent: Tensor) -> Tensor:
        """Restored latents [T, h, w, C] of noise and degraded latents of that shape."""
        mask = torch.ones_like(noise[..., :1])
        timestep = torch.tensor(TIMESTEP, device=noise.device)
        velocity = self.generator(torch.cat([noise, latent, mask], -1), self.text, timestep)
        assert isinstance(velocity, Tensor)
        return noise - velocity


class Nano(nn.Module):
    """VAE and generator. Clips are [B, 3, T, H, W] in -1..1, latents [B, C, t, h, w], scaled.

    The convolutions run in bf16, which the machines at hand are quick with, the generator in fp32.
    """

    def __init__(self, vae: VideoVae, restoration: Restoration) -> None:
        super().__init__()
        self.vae = vae
        self.restoration = restoration

    def encode(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled latents, and their log variance before scaling."""
        with torch.autocast(clips.device.type, torch.bfloat16):
            mean, logvar = split_moments(self.vae.encode(clips))
        return mean.float() * self.vae.config.scaling, logvar.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Clips of scaled latents."""
        with torch.autocast(latents.device.type, torch.bfloat16):
            return self.vae.decode(latents / self.vae.config.scaling).float()

    def restore_latents(self, latents: Tensor, seed: tuple[int, ...]) -> Tensor:
        """What the generator makes of latents; `seed` decides the noise.

        The clips of a batch lie side by side, as one wide clip: its windows are wider than a
        clip's, and what is far away is another picture.
        """
        B, C, t, h, w = latents.shape
        wide = latents.permute(2, 3, 0, 4, 1).reshape(t, h, B * w, C)
        noise = np.random.default_rng(seed).standard_normal(tuple(wide.shape), dtype=np.float32)
        restored = self.restoration(torch.from_numpy(noise).to(wide.device), wide)
        assert isinstance(restored, Tensor)
        return restored.view(t, h, B, w, C).permute(2, 4, 0, 1, 3)

    def reconstruct(self, clips: Tensor) -> Tensor:
        """The clips through encoder and decoder alone."""
        return self.decode(self.encode(clips)[0])

    def forward(self, clips: Tensor, seed: tuple[int, ...]) -> Tensor:
        """The restored clips, before colour correction."""
        return self.decode(self.restore_latents(self.encode(clips)[0], seed))


def new_nano(vae: VaeConfig, generator: GeneratorConfig, pool: Pool, seed: int) -> Nano:
    """A nano that starts as the linear code of the pool's clips and an identity generator.

    The bias of every `upscale_conv` is zero and stays so: the deployed form is cheaper then. At one
    timestep the time embedding says what the learned modulation can say, and stays zero.
    """
    torch.manual_seed(seed)
    nano = Nano(VideoVae(vae), Restoration(generator))
    clips, _ = pool.batch((seed,), 256, pool.sharp.shape[1], min(64, pool.sharp.shape[2]))
    start_linear(nano.vae, clips[:, :, 1:].numpy())
    start_identity(nano.restoration.generator)
    for module in nano.vae.modules():
        if isinstance(module, Upsample) and module.upscale_conv.bias is not None:
            module.upscale_conv.bias.requires_grad_(False)
    nano.restoration.generator.emb_in.requires_grad_(False)
    hold_constants(nano.vae)
    return nano


def recoloured(clips: Tensor, reference: Tensor, detail: tuple[float, ...] = DETAIL_NANO) -> Tensor:
    """`clips` [B, 3, T, H, W] after nano's colour correction by `reference` of that shape."""
    wavelet = Wavelet(detail).to(clips.device)
    frames = [side.transpose(1, 2).flatten(0, 1) for side in (clips, reference)]
    out = wavelet(*frames)
    assert isinstance(out, Tensor)
    return out.unflatten(0, (clips.shape[0], -1)).transpose(1, 2)


def below_detail(clips: Tensor, detail: tuple[float, ...]) -> Tensor:
    """What is left of `clips` [B, 3, T, H, W] without the bands that `detail` is about."""
    return clips - recoloured(clips, torch.zeros_like(clips), (1.0,) * len(detail))
