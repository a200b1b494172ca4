"""Finish nano: tune the decoder to what the generator gives, on larger crops.

    python -m vr_trt.export.nano.train_decoder --work FOLDER

Encoder and generator stay as they are. Half of the steps decode the latents of a sharp clip, half
those that the generator restored from the degraded one; the target is the sharp clip in both.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vr_trt.export.nano.latents import encode_clip
from vr_trt.export.nano.losses import picture_loss, psnr
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.train_generator import Restoration, decode_latents, train_generator
from vr_trt.export.nano.train_vae import train_vae
from vr_trt.export.nano.training import Phase, Training, device_of, train
from vr_trt.export.vae import VideoVae

SEED = 60
PHASES = (Phase(name="finish", steps=600, clips=1, frames=9, size=96, rate=1e-4, last_rate=5e-6),)


def restored_latents(
    vae: VideoVae, restoration: Restoration, degraded: Tensor, noise: Tensor
) -> Tensor:
    """Restored diffusion latents [t, h, w, 16] of a degraded clip [1, 3, T, H, W]."""
    latent = encode_clip(vae, degraded)[0].permute(1, 2, 3, 0)
    with torch.no_grad():
        out = restoration(noise[: latent.shape[0]], latent)
    assert isinstance(out, Tensor)
    return out


class DecoderTrainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(self, training: Training, restoration: Restoration, pools: dict[str, Pool]):
        self.training = training
        self.restoration = restoration
        self.pools = pools
        self.started = time.monotonic()
        assert isinstance(training.model, VideoVae)
        self.vae = training.model

    def _latents(self, sharp: Tensor, degraded: Tensor, rng: np.random.Generator) -> Tensor:
        side = sharp.shape[-1] // 8
        noise = rng.standard_normal((1 + (sharp.shape[2] - 1) // 4, side, side, 16), np.float32)
        if rng.random() < 0.5:
            return encode_clip(self.vae, sharp)[0].permute(1, 2, 3, 0)
        at = torch.from_numpy(noise).to(sharp.device)
        return restored_latents(self.vae, self.restoration, degraded, at)

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step."""
        rng = np.random.default_rng((self.training.seed, step))
        frames = 1 if rng.random() < 0.1 else phase.frames
        pair = self.pools["train"].batch((self.training.seed, step), 1, frames, phase.size)
        sharp, degraded = (side.to(device_of(self.vae)) for side in pair)
        out = decode_latents(self.vae, self._latents(sharp, degraded, rng))
        return picture_loss(out, sharp)

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        scores = []
        with torch.no_grad(), self.training.averaged() as vae:
            assert isinstance(vae, VideoVae)
            for index in range(8):
                pair = self.pools["held-out"].batch((8, index), 1, phase.frames, 96)
                sharp, degraded = (side.to(device_of(vae)) for side in pair)
                noise = torch.randn(3, 12, 12, 16, generator=torch.Generator().manual_seed(index))
                restored = restored_latents(vae, self.restoration, degraded, noise.to(sharp.device))
                plain = encode_clip(vae, sharp)[0].permute(1, 2, 3, 0)
                outs = [decode_latents(vae, z) for z in (restored, plain)]
                scores.append([psnr(out, sharp) for out in (*outs, degraded)])
        means = np.mean(scores, axis=0)
        minutes = (time.monotonic() - self.started) / 60
        print(
            f"{minutes:6.1f} min  {phase.name}  step {self.training.step}  loss {loss:.4f}  "
            f"held-out restored {means[0]:.2f} dB, sharp through the VAE {means[1]:.2f}, "
            f"degraded {means[2]:.2f}",
            flush=True,
        )


def train_decoder(work: Path, phases: tuple[Phase, ...] = PHASES) -> tuple[VideoVae, Restoration]:
    """Train through `phases`, going on from `work/decoder.pt`; the finished VAE and generator."""
    restoration = train_generator(work).eval().requires_grad_(False)
    vae = train_vae(work)
    vae.encoder.requires_grad_(False)
    pools = {
        "train": open_pool(work / "pool", PoolSpec()),
        "held-out": open_pool(work / "held-out", PoolSpec(seed=2, split="held-out", clips=48)),
    }
    training = Training(vae, seed=SEED)
    trainer = DecoderTrainer(training, restoration, pools)
    train(training, phases, trainer.loss, work / "decoder.pt", trainer.report)
    training.keep_average()
    return vae, restoration


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train_decoder(options.work)


if __name__ == "__main__":
    main()
