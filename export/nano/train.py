"""Train nano from nothing and write its weights: one command, resumable, seeded.

    python -m vr_trt.export.nano.train --work FOLDER --out export/nano/weights

FOLDER keeps the clips and the checkpoint (about 1.5 GB). Run again after an interruption, it goes
on where it was. On a GPU where PyTorch finds one, else on the CPU. The weights here took 100 minutes
of one shared CPU core: they are these phases', and more steps would lead further. Another run's
clips differ in a few bits, as x264 does not always give the same ones.

The VAE starts as a linear code and is trained with the generator from the first step, by regression
on the finished picture: nano's detail over what the colour correction keeps of the input (`config.
DETAIL_NANO`). So nothing is spent on what the correction replaces. Now and then a clip is sharp
already: it must come back as it is, by the VAE alone or with the generator.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vr_trt.export.config import DETAIL_NANO, GENERATOR_NANO, VAE_NANO
from vr_trt.export.nano.linear_start import on_identity_path
from vr_trt.export.nano.losses import picture_loss, psnr, squared_error, ssim
from vr_trt.export.nano.network import Nano, below_detail, new_nano, recoloured
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.training import Phase, Training, best_device, device_of, train

SEED = 80
STILL_SHARE = 0.1  # of all steps: single pictures, as many as a clip has frames
RAW_WEIGHT = 0.02  # of the picture before the correction, so that it stays one
FIRST_DETAIL, SECOND_DETAIL = (0.5, 0.25, 0.25), (0.5, 0.15, 0.15)
# Of absolute and of squared errors: under it a clip is good enough (squared: 36 dB).
ABSOLUTE_FLOOR, SQUARED_FLOOR = 0.01, 0.001
# First with absolute errors, and smaller shares of the detail than are used in the end, while the
# code is poor. Squared errors then bring back the contrast that absolute ones had cost.
PAN = Phase(
    name="pan",
    errors="absolute",
    steps=1500,
    size=64,
    rate=1e-3,
    last_rate=1e-5,
    detail=SECOND_DETAIL,
    fast=0.5,
    pan=14,
)
SHARPEN = Phase(
    name="sharpen",
    steps=9000,
    size=64,
    rate=1.5e-3,
    last_rate=3e-4,
    detail=DETAIL_NANO,
    code=0.03,
    fast=0.3,
    pan=14,
)
PHASES = (
    replace(
        PAN,
        name="restore",
        steps=6500,
        rate=1.5e-3,
        last_rate=1.5e-3,
        detail=FIRST_DETAIL,
        fast=0,
        pan=0,
    ),
    replace(PAN, name="settle", steps=2500, size=80, rate=1.5e-3, pan=0),
    PAN,
    SHARPEN,
    replace(SHARPEN, name="finish", steps=2500, size=80, rate=3e-4, last_rate=1e-5),
)
REPORT_CLIPS, GOOD = 8, 50.0  # dB: the input may be sharp already
IDENTITY_PACE, OFFSET_PACE = 0.3, 0.3


def pace(name: str, parameter: Tensor) -> float:
    """How fast a parameter moves: what the linear code is made of, and all offsets, are slow.

    A picture's strong low frequencies go through them, and would flicker from step to step.
    """
    if parameter.ndim == 1:
        return OFFSET_PACE
    return IDENTITY_PACE if name.startswith("vae.") and on_identity_path(name) else 1.0


def clip_loss(out: Tensor, degraded: Tensor, sharp: Tensor, phase: Phase) -> Tensor:
    """The loss of nano's clips `out` of `degraded` ones, all [B, 3, T, H, W] in -1..1.

    Each clip's logarithm, as PSNR is: hard clips (noise, stripes) would drown the easy ones. Before
    the correction, squared errors count only below the bands of detail: where nano makes a part of
    a band, it may make it too strong.
    """
    finished = recoloured(out, degraded, phase.detail)
    if phase.errors == "absolute":
        error_of, floor, raw = picture_loss, ABSOLUTE_FLOOR, (out, sharp)
    else:
        error_of, floor = squared_error, SQUARED_FLOOR
        raw = below_detail(out, phase.detail), below_detail(sharp, phase.detail)
    losses = []
    for index in range(len(out)):
        clip = slice(index, index + 1)
        error = error_of(finished[clip], sharp[clip])
        error = error + RAW_WEIGHT * error_of(raw[0][clip], raw[1][clip])
        structure = 1 - ssim(finished[clip], sharp[clip]) if phase.errors == "squared" else 0.0
        losses.append((error + floor).log() + structure)
    return torch.stack(losses).mean()


class Trainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(self, training: Training, nano: Nano, pools: dict[str, Pool]) -> None:
        self.training = training
        self.nano = nano
        self.pools = pools
        self.started = time.monotonic()

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step."""
        seed = (self.training.seed, step)
        rng = np.random.default_rng((*seed, 1))
        clips, frames = phase.clips, phase.frames
        if rng.random() < STILL_SHARE:
            clips, frames = clips * frames // 2, 1
        speed = 2 if phase.fast and frames > 1 and rng.random() < phase.fast else 1
        pair = self.pools["train"].batch(seed, clips, frames, phase.size, speed, phase.pan)
        sharp, degraded = (side.to(device_of(self.nano)) for side in pair)
        if rng.random() < phase.code:
            return clip_loss(self.nano.reconstruct(sharp), sharp, sharp, phase)
        return clip_loss(self.nano(degraded, (*seed, 2)), degraded, sharp, phase)

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        pool, scores = self.pools["held-out"], []
        with torch.no_grad(), self.training.averaged():
            for index in range(REPORT_CLIPS):
                pair = pool.batch((8, index), 1, pool.sharp.shape[1], 96)
                sharp, degraded = (side.to(device_of(self.nano)) for side in pair)
                restored = recoloured(self.nano(degraded, (index,)), degraded)
                outs = (restored, degraded, self.nano.reconstruct(sharp))
                scores.append([min(GOOD, psnr(out, sharp)) for out in outs])
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
        "held-out": open_pool(
            work / "held-out", PoolSpec(seed=2, split="held-out", clips=48, damage="any")
        ),
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
