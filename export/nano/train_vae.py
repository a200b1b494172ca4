"""Train nano's causal video VAE: first on single pictures, then on clips.

    python -m vr_trt.export.nano.train_vae --work FOLDER

A single picture needs only the last tap of every three-tap kernel as long as the others are zero,
so the first phase runs as a cheap 2-D network, and the second goes on from the same weights.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.export.causal import CausalConv3d, Stream
from vr_trt.export.config import VAE_NANO, VaeConfig
from vr_trt.export.nano.linear_start import hold_constants, start_linear
from vr_trt.export.nano.losses import picture_loss, psnr, spread_loss
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.training import Phase, Training, best_device, device_of, train
from vr_trt.export.vae import Upsample, VideoVae, split_moments

SEED = 20
SPREAD_WEIGHT = 1e-5
SHARP_SHARE = 0.6  # of the clips; the encoder must read degraded ones as well
PHASES = (
    Phase(name="pictures", steps=800, clips=8, frames=1, size=64, rate=2e-4, last_rate=2e-4),
    Phase(name="clips", steps=2200, clips=2, frames=5, size=64, rate=2e-4, last_rate=1.4e-4),
    Phase(name="longer", steps=1000, clips=1, frames=9, size=80, rate=1.4e-4, last_rate=1e-5),
)
STILL_SHARE = 0.15  # of the steps of the last phase: single pictures


def new_vae(config: VaeConfig, pool: Pool, seed: int) -> VideoVae:
    """A VAE that starts as the linear code of the pool's pictures.

    The bias of every `upscale_conv` is zero and stays so: the deployed form is cheaper then.
    """
    torch.manual_seed(seed)
    vae = VideoVae(config)
    pictures, _ = pool.batch((seed,), 256, 1, min(64, pool.sharp.shape[2]))
    start_linear(vae, pictures[:, :, 0].double().numpy())
    for module in vae.modules():
        if isinstance(module, Upsample) and module.upscale_conv.bias is not None:
            module.upscale_conv.bias.requires_grad_(False)
    hold_constants(vae)
    return vae


def start_time(vae: VideoVae) -> None:
    """From pictures to clips, without a change for pictures.

    Downsampling in time takes the mean of two frames, upsampling gives both of them the same.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, CausalConv3d) and module.stride[0] == 2:
                module.weight[:, :, -1] /= 2
                module.weight[:, :, -2] = module.weight[:, :, -1]
            if isinstance(module, Upsample) and module.frames == 2:
                weight = module.upscale_conv.weight
                parts = weight.unflatten(0, (4, 2, -1))
                parts[:, 1] = parts[:, 0]


def _last_tap(conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
    """The convolution of a single picture [B, C, 1, H, W] while earlier taps are zero."""
    side = conv.kernel_size[1] // 2
    sides = (0, 1, 0, 1) if conv.stride[1] == 2 else (side,) * 4
    out = F.conv2d(F.pad(x[:, :, 0], sides), conv.weight[:, :, -1], conv.bias, conv.stride[1:])
    return out.unsqueeze(2)


@contextmanager
def as_pictures(vae: nn.Module) -> Iterator[None]:
    """Within, every convolution is the 2-D one of its last tap."""
    convs = [m for m in vae.modules() if isinstance(m, CausalConv3d)]
    for conv in convs:
        conv.forward = partial(_last_tap, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in convs:
            del conv.forward


def reconstruct(vae: VideoVae, x: Tensor) -> Tensor:
    """What the decoder makes of the encoder's mean, in the type that this machine is quick with."""
    with torch.autocast(x.device.type, torch.bfloat16):
        return vae.decode(split_moments(vae.encode(x))[0]).float()


def vae_loss(vae: VideoVae, x: Tensor, draws: torch.Generator) -> Tensor:
    """Reconstruction of a batch [B, 3, T, H, W] from sampled latents, and their spread."""
    with torch.autocast(x.device.type, torch.bfloat16):
        mean, logvar = split_moments(vae.encode(x))
        mean, logvar = mean.float(), logvar.float()
        noise = torch.randn(mean.shape, generator=draws).to(mean.device)
        out = vae.decode(mean + (0.5 * logvar).exp() * noise)
    return picture_loss(out, x) + SPREAD_WEIGHT * spread_loss(mean, logvar)


class VaeTrainer:
    """Gives the loss of every training step and reports on held-out clips."""

    def __init__(
        self, training: Training, pool: Pool, held_out: Pool, phases: tuple[Phase, ...]
    ) -> None:
        self.training = training
        self.first_clip = sum(phase.steps for phase in phases if phase.frames == 1)
        self.pool = pool
        self.held_out = held_out
        self.started = time.monotonic()
        self.vae = training.model
        assert isinstance(self.vae, VideoVae)

    def loss(self, phase: Phase, step: int) -> Tensor:
        """The loss of training step `step`, a function of the weights, the seed and the step."""
        assert isinstance(self.vae, VideoVae)
        key = (self.training.seed, step)
        clips, frames = phase.clips, phase.frames
        draws = torch.Generator().manual_seed(self.training.seed * 1_000_003 + step)
        if phase.name == "longer" and torch.rand((), generator=draws) < STILL_SHARE:
            clips, frames = clips * frames, 1
        sharp, degraded = self.pool.batch(key, clips, frames, phase.size)
        keep = torch.rand((clips, 1, 1, 1, 1), generator=draws) < SHARP_SHARE
        x = torch.where(keep, sharp, degraded).to(device_of(self.vae))
        if phase.frames == 1:
            with as_pictures(self.vae):
                return vae_loss(self.vae, x, draws)
        if step == self.first_clip:
            start_time(self.vae)
        return vae_loss(self.vae, x, draws)

    def report(self, phase: Phase, loss: float) -> None:
        """Print how the averaged weights do on clips of other pictures."""
        sharp, _ = self.held_out.batch((7,), 8, phase.frames, 96)
        with torch.no_grad(), self.training.averaged() as vae:
            assert isinstance(vae, VideoVae)
            out = reconstruct(vae, sharp.to(device_of(vae))).cpu()
        scores = [psnr(ours, theirs) for ours, theirs in zip(out, sharp, strict=True)]
        minutes = (time.monotonic() - self.started) / 60
        print(
            f"{minutes:6.1f} min  {phase.name}  step {self.training.step}  loss {loss:.4f}  "
            f"held-out mean {sum(scores) / len(scores):.2f} dB",
            flush=True,
        )


def train_vae(work: Path, phases: tuple[Phase, ...] = PHASES) -> VideoVae:
    """Train through `phases`, going on from `work/vae.pt` if it is there; the averaged VAE."""
    pool = open_pool(work / "pool", PoolSpec())
    held_out = open_pool(work / "held-out", PoolSpec(seed=2, split="held-out", clips=48))
    training = Training(new_vae(VAE_NANO, pool, SEED).to(best_device()), seed=SEED)
    trainer = VaeTrainer(training, pool, held_out, phases)
    train(training, phases, trainer.loss, work / "vae.pt", trainer.report)
    training.keep_average()
    vae = training.model
    assert isinstance(vae, VideoVae)
    return vae


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train_vae(options.work)


if __name__ == "__main__":
    main()
