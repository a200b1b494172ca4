"""Finish nano: tune generator and decoder together, on pictures.

    python -m vr_trt.export.nano.train_together --work FOLDER

The encoder stays as it is. Half of the steps decode the latents of a sharp clip, half those that
the generator restores from the degraded one. The target is the sharp clip, in the second case with
the degraded clip's colours, which the colour correction would bring back anyway.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vr_trt.export.colour_fix import Wavelet
from vr_trt.export.nano.latents import encode_clip
from vr_trt.export.nano.losses import picture_loss, psnr
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.train_generator import Restoration, decode_latents, train_generator
from vr_trt.export.nano.train_vae import train_vae
from vr_trt.export.nano.training import Phase, Training, device_of, train
from vr_trt.export.vae import VideoVae

SEED = 60
PHASES = (
    Phase(name="together", steps=250, clips=1, frames=9, size=96, rate=1.5e-4, last_rate=1.1e-4),
    Phase(name="settle", steps=1500, clips=1, frames=9, size=96, rate=1.1e-4, last_rate=5e-6),
)


class Nano(nn.Module):
    """All of nano."""

    def __init__(self, vae: VideoVae, restoration: Restoration) -> None:
        super().__init__()
        self.vae = vae
        self.restoration = restoration

    def reconstruct(self, clip: Tensor) -> Tensor:
        """A clip [1, 3, T, H, W] in -1..1 through encoder (without gradient) and decoder."""
        return decode_latents(self.vae, encode_clip(self.vae, clip)[0].permute(1, 2, 3, 0))

    def forward(self, degraded: Tensor, seed: tuple[int, ...]) -> Tensor:
        """The restored clip, before colour correction; `seed` decides the noise."""
        latent = encode_clip(self.vae, degraded)[0].permute(1, 2, 3, 0)
        noise = np.random.default_rng(seed).standard_normal(latent.shape, dtype=np.float32)
        restored = self.restoration(torch.from_numpy(noise).to(latent.device), latent)
        return decode_latents(self.vae, restored)


def recoloured(clip: Tensor, reference: Tensor) -> Tensor:
    """The detail of `clip` on the low frequencies of `reference`, both [1, 3, T, H, W]."""
    out = Wavelet().to(clip.device)(clip[0].transpose(0, 1), reference[0].transpose(0, 1))
    assert isinstance(out, Tensor)
    return out.transpose(0, 1)[None]


class TogetherTrainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(self, training: Training, nano: Nano, pools: dict[str, Pool]) -> None:
        self.training = training
        self.nano = nano
        self.pools = pools
        self.started = time.monotonic()

    def _pair(self, split: str, seed: tuple[int, ...], frames: int, size: int) -> list[Tensor]:
        pair = self.pools[split].batch(seed, 1, frames, size)
        return [side.to(device_of(self.nano)) for side in pair]

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step."""
        seed = (self.training.seed, step)
        rng = np.random.default_rng((*seed, 1))
        frames = 1 if rng.random() < 0.1 else phase.frames
        sharp, degraded = self._pair("train", seed, frames, phase.size)
        if rng.random() < 0.4:
            return picture_loss(self.nano.reconstruct(sharp), sharp)
        return picture_loss(self.nano(degraded, (*seed, 2)), recoloured(sharp, degraded))

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        scores = []
        with torch.no_grad(), self.training.averaged():
            for index in range(8):
                sharp, degraded = self._pair("held-out", (8, index), phase.frames, 96)
                restored = recoloured(self.nano(degraded, (index,)), degraded)
                outs = (restored, self.nano.reconstruct(sharp), degraded)
                scores.append([psnr(out, sharp) for out in outs])
        means = np.mean(scores, axis=0)
        minutes = (time.monotonic() - self.started) / 60
        print(
            f"{minutes:6.1f} min  {phase.name}  step {self.training.step}  loss {loss:.4f}  "
            f"held-out restored {means[0]:.2f} dB, sharp through the VAE {means[1]:.2f}, "
            f"degraded {means[2]:.2f}",
            flush=True,
        )


def train_together(work: Path, phases: tuple[Phase, ...] = PHASES) -> Nano:
    """Train through `phases`, going on from `work/together.pt`; the finished nano."""
    nano = Nano(train_vae(work), train_generator(work))
    nano.vae.encoder.requires_grad_(False)
    pools = {
        "train": open_pool(work / "pool", PoolSpec()),
        "held-out": open_pool(work / "held-out", PoolSpec(seed=2, split="held-out", clips=48)),
    }
    training = Training(nano, seed=SEED)
    trainer = TogetherTrainer(training, nano, pools)
    train(training, phases, trainer.loss, work / "together.pt", trainer.report)
    training.keep_average()
    return nano


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train_together(options.work)


if __name__ == "__main__":
    main()
