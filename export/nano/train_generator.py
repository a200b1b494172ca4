"""Train nano's one-step generator: degraded latents and noise to sharp latents, by regression.

    python -m vr_trt.export.nano.train_generator --work FOLDER

The loss is the error of the latents, each channel weighed by what it does to the picture. Needs
the VAE that `train_vae` left in the folder, and trains it first where it is missing.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.export.config import GENERATOR_NANO, GeneratorConfig
from vr_trt.export.generator import Generator, LayerModulation, SwiGlu, WindowAttention
from vr_trt.export.nano.latents import LatentPool, encode_pool, turned
from vr_trt.export.nano.losses import psnr
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.train_vae import train_vae
from vr_trt.export.nano.training import Phase, Training, best_device, device_of, train
from vr_trt.export.vae import VideoVae

SEED = 40
TIMESTEP = 1000.0
TEXT_TOKENS = 8
LOUD = 100.0  # a constant channel that makes the RMS norms nearly linear
# `clips` counts the mosaic's rows (columns are half as many again), `size` is the clips' own.
PHASES = (
    Phase(name="latents", steps=1500, clips=2, frames=3, size=128, rate=1e-3, last_rate=5e-5),
)


class Restoration(nn.Module):
    """The generator and its learned text, as one thing to train."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.generator = Generator(config)
        self.text = nn.Parameter(torch.randn(TEXT_TOKENS, config.text_width))

    def forward(self, noise: Tensor, latent: Tensor) -> Tensor:
        """Restored latents [T, h, w, 16] of noise and degraded latents of that shape."""
        mask = torch.ones_like(noise[..., :1])
        timestep = torch.tensor(TIMESTEP, device=noise.device)
        video = torch.cat([noise, latent, mask], -1)
        velocity = self.generator(video, self.text, timestep)
        assert isinstance(velocity, Tensor)
        return noise - velocity


def new_restoration(config: GeneratorConfig, seed: int) -> Restoration:
    """A generator that starts as the identity: v = noise - latent, blocks that add nothing.

    The first 64 channels carry a patch's noise through to the end, the next 64 its latent, the
    next is a large constant, which keeps the norms' divisor nearly the same for every token. The
    modulation hides the noise from the blocks and undoes the divisor.
    """
    torch.manual_seed(seed)
    restoration = Restoration(config)
    patch = 4 * config.vid_out_channels
    if config.width <= 2 * patch:
        raise ValueError(f"the generator's width must exceed {2 * patch}: {config}")
    divisor = ((LOUD**2 + 2 * patch) / config.width) ** 0.5
    scale = torch.full((config.width,), divisor)
    scale[2 * patch] /= LOUD
    with torch.no_grad():
        for module in restoration.modules():
            _start_module(module, scale, hidden=patch)
        _start_ends(restoration.generator, patch, scale)
    return restoration


def _start_module(module: nn.Module, scale: Tensor, hidden: int) -> None:
    if isinstance(module, LayerModulation):
        for name, value in module.named_parameters():
            if name.endswith("scale"):
                value.copy_(scale)
                value[:hidden] = 0
            elif name.endswith("gate"):
                value.fill_(1)
    elif isinstance(module, SwiGlu):
        module.proj_out.weight.zero_()
    elif isinstance(module, WindowAttention):
        for projection in module.proj_out.children():
            assert isinstance(projection, nn.Linear)
            projection.weight.zero_()
            projection.bias.zero_()


def _start_ends(generator: Generator, patch: int, scale: Tensor) -> None:
    into, out = generator.vid_in.proj, generator.vid_out.proj
    channels = patch // 4
    eye = torch.eye(patch)
    weight = torch.zeros(len(scale), 4, generator.config.vid_in_channels)
    weight[2 * patch + 1 :, :, channels : 2 * channels].normal_(0, patch**-0.5)
    weight[:patch, :, :channels] = eye.view(patch, 4, channels)
    weight[patch : 2 * patch, :, channels : 2 * channels] = eye.view(patch, 4, channels)
    into.weight.copy_(weight.flatten(1))
    into.bias.zero_()
    into.bias[2 * patch] = LOUD
    out.weight.zero_()
    out.weight[:, :patch] = eye
    out.weight[:, patch : 2 * patch] = -eye
    out.bias.zero_()
    generator.vid_out_ada.out_scale.copy_(scale)
    generator.emb_in.proj_out.weight.zero_()
    generator.emb_in.proj_out.bias.zero_()


def channel_weights(vae: VideoVae, latents: Tensor) -> Tensor:  # [N, 16, t, h, w] -> [16]
    """How much of a picture's squared error a unit of squared error in each channel makes."""
    generator = torch.Generator().manual_seed(0)
    z = latents[:8].float().to(device_of(vae)) / vae.config.scaling
    weights = []
    with torch.no_grad(), torch.autocast(z.device.type, torch.bfloat16):
        plain = vae.decode(z).float()
        for channel in range(z.shape[1]):
            push = 0.2 * torch.randn(z[:, channel].shape, generator=generator).to(z.device)
            moved = z.clone()
            moved[:, channel] += push
            error = F.mse_loss(vae.decode(moved).float(), plain)
            weights.append(error / push.square().mean() / vae.config.scaling**2)
    return torch.stack(weights)


def decode_latents(vae: VideoVae, restored: Tensor) -> Tensor:
    """Pictures [1, 3, T, H, W] of diffusion latents [t, h, w, 16]."""
    z = restored.permute(3, 0, 1, 2)[None] / vae.config.scaling
    with torch.autocast(z.device.type, torch.bfloat16):
        return vae.decode(z).float()


class GeneratorTrainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(self, training: Training, vae: VideoVae, pools: dict[str, Pool]) -> None:
        self.training = training
        self.vae = vae
        self.pools = pools
        self.latents: dict[str, LatentPool] = {}
        self.started = time.monotonic()

    def prepare(self, work: Path) -> None:
        """Encode the pools and weigh the latents' channels."""
        for name, pool in self.pools.items():
            self.latents[name] = encode_pool(self.vae, pool, work / f"latents-{name}.pt")
        self.weights = channel_weights(self.vae, self.latents["train"].sharp)
        self.weights = self.weights / self.weights.mean()

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step."""
        rng = np.random.default_rng((self.training.seed, step))
        frames = 1 if rng.random() < 0.15 else phase.frames + 2 * int(rng.random() < 0.3)
        columns = phase.clips * 3 // 2
        sides = self.latents["train"].mosaic(rng, frames, phase.clips, columns)
        sharp, degraded = (side.to(device_of(self.training.model)) for side in sides)
        noise = torch.from_numpy(rng.standard_normal(sharp.shape, dtype=np.float32))
        error = self.training.model(noise.to(sharp.device), degraded) - sharp
        loss: Tensor = (error.square() * self.weights).mean() + 0.05 * error.abs().mean()
        return loss

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        latents, pool = self.latents["held-out"], self.pools["held-out"]
        scores = []
        with torch.no_grad(), self.training.averaged() as model:
            device = device_of(model)
            for index in range(8):
                degraded = latents.degraded[index].float().permute(1, 2, 3, 0).to(device)
                noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(index))
                restored = model(noise.to(device), degraded)
                sharp = turned(pool.sharp, index)[None]
                ways = (restored, degraded, latents.sharp[index].float().permute(1, 2, 3, 0))
                outs = [decode_latents(self.vae, way.to(device)).cpu() for way in ways]
                outs.append(turned(pool.degraded, index)[None])
                scores.append([psnr(out, sharp) for out in outs])
        means = np.mean(scores, axis=0)
        minutes = (time.monotonic() - self.started) / 60
        print(
            f"{minutes:6.1f} min  {phase.name}  step {self.training.step}  loss {loss:.4f}  "
            f"held-out restored {means[0]:.2f} dB, degraded through the VAE {means[1]:.2f}, "
            f"sharp through the VAE {means[2]:.2f}, degraded {means[3]:.2f}",
            flush=True,
        )


def train_generator(work: Path, phases: tuple[Phase, ...] = PHASES) -> Restoration:
    """Train through `phases`, going on from `work/generator.pt`; the averaged generator."""
    vae = train_vae(work).eval().requires_grad_(False)
    pools = {
        "train": open_pool(work / "pool", PoolSpec()),
        "held-out": open_pool(work / "held-out", PoolSpec(seed=2, split="held-out", clips=48)),
    }
    training = Training(new_restoration(GENERATOR_NANO, SEED).to(best_device()), seed=SEED)
    trainer = GeneratorTrainer(training, vae, pools)
    trainer.prepare(work)
    train(training, phases, trainer.loss, work / "generator.pt", trainer.report)
    training.keep_average()
    assert isinstance(training.model, Restoration)
    return training.model


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train_generator(options.work)


if __name__ == "__main__":
    main()
