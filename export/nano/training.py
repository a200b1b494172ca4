"""What trains: phases, the optimiser's steps, moving averages, and checkpoints.

A checkpoint holds the model, the averages, the optimiser and the step, and every batch is a
function of (seed, step), so a resumed training is bit for bit the uninterrupted one.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vr_trt.kernels.detail import PUBLISHED_DETAIL

AVERAGE = 0.998  # of the moving average of the weights, per step
FULL_RATE = 100  # inputs: with more of them a weight moves by so much less, the sum by the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of training on crops of one shape; the rate falls to `last_rate` as a cosine."""

    name: str
    steps: int
    clips: int = 2
    frames: int = 5
    size: int
    rate: float
    last_rate: float
    detail: tuple[float, ...] = PUBLISHED_DETAIL  # see `kernels.detail`
    fast: float = 0.0  # share of the batches at twice the speed
    pan: int = 0  # pixels a frame that a crop moves by, at most
    code: float = 0.1  # share of the batches that are sharp and go through the VAE alone
    errors: Literal["absolute", "squared"] = "squared"  # what the loss is made of

    def rate_at(self, step: int) -> float:
        """The learning rate at `step` of this phase, after a short warm-up."""
        share = (1 + math.cos(math.pi * step / max(1, self.steps))) / 2
        return min(1.0, (step + 1) / 100) * (self.last_rate + (self.rate - self.last_rate) * share)


def phase_at(phases: tuple[Phase, ...], step: int) -> tuple[Phase, int] | None:
    """The phase that training step `step` lies in and the step within it; None past the end."""
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    return None


class Training:
    """A model under training; its moving average is what gets shipped."""

    def __init__(
        self, model: nn.Module, *, seed: int, pace: Callable[[str, Tensor], float] = lambda *_: 1.0
    ) -> None:
        self.model = model
        self.seed = seed
        self.step = 0
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p], "share": pace(name, p) * min(1.0, FULL_RATE / p[0].numel())}
            for name, p in self.trained.items()
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}

    def update(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of `loss`, clipped."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.step()
        self.step += 1
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with the averaged weights in place, for looking at and for shipping."""
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        self.keep_average()
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(own[name])

    def keep_average(self) -> None:
        """End the training: the averaged weights become the model's own."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.average[name])

    def save(self, path: Path) -> None:
        """Write the checkpoint, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        """Go on from the checkpoint at `path`, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=device_of(self.model))
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    training: Training,
    phases: tuple[Phase, ...],
    loss_of: Callable[[Phase, int], Tensor],
    checkpoint: Path,
    report: Callable[[Phase, float], None],
) -> None:
    """Train through all phases from the checkpoint on; save and report every 250 steps.

    `loss_of` gives the loss of the batch that training step number two decides.
    """
    training.resume(checkpoint)
    losses: list[float] = []
    while (place := phase_at(phases, training.step)) is not None:
        phase, inner = place
        loss = loss_of(phase, training.step)
        losses.append(loss.item())
        training.update(loss, phase.rate_at(inner))
        if training.step % 250 == 0 or inner == phase.steps - 1:
            training.save(checkpoint)
            report(phase, sum(losses) / len(losses))
            losses.clear()
