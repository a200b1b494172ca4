"""Train nano from nothing and write its weights: one command, resumable, seeded.

    python -m vr_trt.export.nano.train --work FOLDER --out export/nano/weights

FOLDER keeps the clips and the checkpoint (about 1.5 GB). Run again after an interruption, it goes
on where it was. On a GPU where PyTorch finds one, else on the CPU. The weights here took half an
hour of one shared CPU core: they are this command's, and far from where more steps would lead.

The VAE comes first, as an autoencoder of sharp and degraded clips. Then encoder, generator and
decoder are trained together, by regression: the target of a degraded clip is the sharp one with
the degraded one's low frequencies, which the colour correction would bring back anyway. Part of
those steps reconstructs sharp clips without the generator, so that the VAE stays one.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vr_trt.export.config import GENERATOR_NANO, VAE_NANO
from vr_trt.export.nano.linear_start import on_identity_path
from vr_trt.export.nano.losses import picture_loss, psnr, spread_loss
from vr_trt.export.nano.network import Nano, new_nano, recoloured
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.training import Phase, Training, best_device, device_of, train

SEED = 80
SPREAD_WEIGHT = 1e-5
SHARP_SHARE = 0.7  # of the clips that the VAE alone is trained on
VAE_SHARE = 0.2  # of the steps after that: reconstruction of sharp clips
STILL_SHARE = 0.1  # of all steps: single pictures, as many as a clip has frames
PHASES = (
    Phase(name="vae", steps=250, clips=2, frames=5, size=64, rate=3e-4, last_rate=3e-4),
    Phase(name="restore", steps=1250, clips=2, frames=5, size=64, rate=3e-4, last_rate=1.5e-4),
    Phase(name="settle", steps=250, clips=1, frames=9, size=80, rate=1.5e-4, last_rate=1e-6),
)
REPORT_CLIPS = 8
IDENTITY_PACE, OFFSET_PACE = 0.2, 0.3


def pace(name: str, parameter: Tensor) -> float:
    """How fast a parameter moves: what the linear code is made of, and all offsets, are slow.

    A picture's strong low frequencies go through them, and would flicker from step to step.
    """
    if parameter.ndim == 1:
        return OFFSET_PACE
    return IDENTITY_PACE if name.startswith("vae.") and on_identity_path(name) else 1.0


class Trainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(self, training: Training, nano: Nano, pools: dict[str, Pool]) -> None:
        self.training = training
        self.nano = nano
        self.pools = pools
        self.started = time.monotonic()

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step.

        A logarithm, as PSNR is: hard clips (noise, stripes) would drown the easy ones.
        """
        seed = (self.training.seed, step)
        rng = np.random.default_rng((*seed, 1))
        clips, frames = phase.clips, phase.frames
        if rng.random() < STILL_SHARE:
            clips, frames = clips * frames // 2, 1
        pair = self.pools["train"].batch(seed, clips, frames, phase.size)
        sharp, degraded = (side.to(device_of(self.nano)) for side in pair)
        if phase.name == "vae":
            return self._vae_loss(sharp if rng.random() < SHARP_SHARE else degraded, step)
        if rng.random() < VAE_SHARE:
            return picture_loss(self.nano.reconstruct(sharp), sharp).log()
        return picture_loss(self.nano(degraded, (*seed, 2)), recoloured(sharp, degraded)).log()

    def _vae_loss(self, clips: Tensor, step: int) -> Tensor:
        """Reconstruction from sampled latents, and how far their spread is from the normal one."""
        latents, logvar = self.nano.encode(clips)
        draws = torch.Generator().manual_seed(self.training.seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=draws).to(latents.device)
        scaling = self.nano.vae.config.scaling
        out = self.nano.decode(latents + scaling * (0.5 * logvar).exp() * noise)
        spread = SPREAD_WEIGHT * spread_loss(latents / scaling, logvar)
        return picture_loss(out, clips).log() + spread

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        pool, scores = self.pools["held-out"], []
        with torch.no_grad(), self.training.averaged():
            for index in range(REPORT_CLIPS):
                pair = pool.batch((8, index), 1, pool.sharp.shape[1], 96)
                sharp, degraded = (side.to(device_of(self.nano)) for side in pair)
                restored = recoloured(self.nano(degraded, (index,)), degraded)
                outs = (restored, degraded, self.nano.reconstruct(sharp))
                scores.append([psnr(out, sharp) for out in outs])
        means = np.mean(scores, axis=0)
        minutes = (time.monotonic() - self.started) / 60
        print(
            f"{minutes:6.1f} min  {phase.name}  step {self.training.step}  loss {loss:.4f}  "
            f"held-out restored {means[0]:.2f} dB, degraded {means[1]:.2f}, "
            f"sharp through the VAE {means[2]:.2f}",
            flush=True,
        )


def train_nano(work: Path, phases: tuple[Phase, ...] = PHASES) -> Nano:
    """Train through `phases`, going on from `work/nano.pt` if it is there; the averaged nano."""
    pools = {
        "train": open_pool(work / "pool", PoolSpec()),
        "held-out": open_pool(work / "held-out", PoolSpec(seed=2, split="held-out", clips=48)),
    }
    nano = new_nano(VAE_NANO, GENERATOR_NANO, pools["train"], SEED).to(best_device())
    training = Training(nano, seed=SEED, pace=pace)
    trainer = Trainer(training, nano, pools)
    train(training, phases, trainer.loss, work / "nano.pt", trainer.report)
    training.keep_average()
    return nano


def write_weights(nano: Nano, folder: Path) -> None:
    """Write `vae`, `generator` and `text` .safetensors in fp16, under the classes' own keys."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(nano.vae.state_dict(), folder / "vae.safetensors")
    _write(nano.restoration.generator.state_dict(), folder / "generator.safetensors")
    _write({"text": nano.restoration.text.detach()}, folder / "text.safetensors")


def _write(state: dict[str, Tensor], path: Path) -> None:
    partial = path.with_suffix(".partial")
    halves = {name: value.half().contiguous().cpu() for name, value in state.items()}
    partial.write_bytes(save(halves))
    os.replace(partial, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the three weight files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    write_weights(train_nano(options.work), options.out)


if __name__ == "__main__":
    main()
