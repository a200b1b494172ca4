"""Calibration: how large each linear's input gets on real latents, and which linears stay wide.

The generator runs in PyTorch, in whatever precision and on whatever device it is; a histogram of
each input's magnitudes is kept, from which every method takes its scale. Linears are left wide, the
most sensitive first, only if the whole would miss the aim: an error clearly below that of another
seed of the noise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vr_trt.export.calibration_table import CalibrationTable, Method
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.export.fp8 import E4M3_MAX, scale_exponent
from vr_trt.export.fp8_network import (
    block_linears,
    input_name,
    quantise_network,
    quantised_linears,
)

LOWEST, HIGHEST, PER_OCTAVE = -30, 18, 8  # of the histograms, in powers of two
KEPT = 0.9999  # of the magnitudes, by the method "percentile"
LOWER = 6  # smaller scales that "mse" tries
AIM = 10 ** (-7 / 20)  # of another seed's error: 48 dB where that one has 41
MOST_WIDE = 0.25  # of the weights; the gate judges what comes out
_NORMAL, _MANTISSA = -6, 3  # E4M3's least normal exponent; its bits after the point


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of the generator, [1, 16, T, h, w] each."""

    latent: Tensor
    noise: Tensor
    other_noise: Tensor  # of another seed


class Magnitudes:
    """A histogram of magnitudes in eighths of an octave."""

    def __init__(self) -> None:
        self.counts = torch.zeros((HIGHEST - LOWEST) * PER_OCTAVE, dtype=torch.float64)
        self.peak = 0.0

    def add(self, x: Tensor) -> None:
        """Count the values of a tensor."""
        sizes = x.detach().float().abs().flatten()
        self.peak = max(self.peak, float(sizes.max()))
        bins = ((sizes.log2() - LOWEST) * PER_OCTAVE).floor()
        found = torch.bincount(
            bins.clamp(0, len(self.counts) - 1).long(), minlength=len(self.counts)
        )
        self.counts += found.cpu()

    def amax(self, method: Method) -> float:
        """The magnitude that is to become E4M3's largest."""
        if method == "percentile":
            share = self.counts.cumsum(0) / self.counts.sum()
            last = int(torch.searchsorted(share, KEPT))
            return min(self.peak, 2.0 ** (LOWEST + (last + 1) / PER_OCTAVE))
        if method == "mse":
            top = scale_exponent(self.peak)
            best = min(range(top, top - LOWER, -1), key=self.rounding_error)
            return min(self.peak, E4M3_MAX * 2.0**best)
        return self.peak

    def rounding_error(self, exponent: int) -> float:
        """The expected mean square error of E4M3 with the scale 2**exponent."""
        middles = torch.arange(len(self.counts), dtype=torch.float64) + 0.5
        sizes = torch.exp2(LOWEST + middles / PER_OCTAVE)
        scale = 2.0**exponent
        steps = torch.exp2((sizes / scale).log2().floor().clamp(min=_NORMAL) - _MANTISSA) * scale
        errors = torch.minimum(steps.square() / 12, sizes.square())  # rounded to nearest, or to 0
        lost = (sizes - E4M3_MAX * scale).clamp(min=0).square()
        errors = torch.where(sizes > E4M3_MAX * scale, lost, errors)
        return float((errors * self.counts).sum() / self.counts.sum())


def observe(folded: FoldedGenerator, samples: Sequence[Sample]) -> dict[str, Magnitudes]:
    """The magnitudes of every block linear's input over `samples`, by the input's name."""
    found: dict[str, Magnitudes] = {}
    tokens = len(folded.text)

    def count(linear: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            name = input_name(linear, len(arguments[0]), tokens)
            found.setdefault(name, Magnitudes()).add(arguments[0])

        return hook

    hooks = [x.register_forward_pre_hook(count(n)) for n, x in block_linears(folded).items()]
    try:
        for sample in samples:
            generate(folded, sample.noise, sample.latent)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def generate(folded: FoldedGenerator, noise: Tensor, latent: Tensor) -> Tensor:
    """The restored latent [1, 16, T, h, w]."""
    _, _, T, h, w = latent.shape
    network = StaticGenerator(folded, (T, h // 2, w // 2)).to(folded.text.device)
    return network(noise.to(folded.text), latent.to(folded.text))


def amax_of(found: Mapping[str, Magnitudes], method: Method) -> dict[str, float]:
    """A table's numbers."""
    return {name: magnitudes.amax(method) for name, magnitudes in found.items()}


@dataclass(frozen=True, slots=True)
class Judge:
    """Measures quantised generators against the wide one, over samples."""

    folded: FoldedGenerator
    samples: Sequence[Sample]
    wanted: Sequence[Tensor]  # the wide generator's outputs

    @classmethod
    def of(cls, folded: FoldedGenerator, samples: Sequence[Sample]) -> "Judge":
        """Runs the wide generator."""
        wanted = [generate(folded, each.noise, each.latent) for each in samples]
        return cls(folded, samples, wanted)

    @property
    def power(self) -> float:
        """The mean square of the wide generator's outputs."""
        return _mean(float(out.double().square().mean()) for out in self.wanted)

    def error(self, network: FoldedGenerator) -> float:
        """The mean square error of a network's outputs."""
        pairs = zip(self.samples, self.wanted, strict=True)
        return _mean(difference(generate(network, s.noise, s.latent), out) for s, out in pairs)

    def other_seed(self) -> float:
        """The mean square that another seed of the noise changes."""
        pairs = zip(self.samples, self.wanted, strict=True)
        return _mean(
            difference(generate(self.folded, s.other_noise, s.latent), out) for s, out in pairs
        )

    def sensitivity(self, table: CalibrationTable) -> dict[str, float]:
        """The error of each linear alone in E4M3, the largest first."""
        errors = {
            name: self.error(quantise_network(self.folded, table, name.__eq__))
            for name in quantised_linears(self.folded, table)
        }
        return dict(sorted(errors.items(), key=lambda item: -item[1]))

    def widened(self, table: CalibrationTable) -> CalibrationTable:
        """`table` with as many linears left wide as the aim needs, up to a quarter of the weights."""
        allowed = AIM**2 * self.other_seed()
        error = self.error(quantise_network(self.folded, table))
        if error <= allowed:
            return table
        linears, wide = block_linears(self.folded), 0
        room = MOST_WIDE * sum(x.weight.numel() for x in linears.values())
        for name, own in self.sensitivity(table).items():
            wide += linears[name].weight.numel()
            if wide > room:
                break
            table = replace(table, wide=(*table.wide, name))
            error -= own  # errors of different linears hardly meet: they add up
            if error <= allowed:
                error = self.error(quantise_network(self.folded, table))
            if error <= allowed:
                break
        return table


@torch.no_grad()
def difference(a: Tensor, b: Tensor) -> float:
    """The mean square of a - b."""
    return float((a.double() - b.double()).square().mean())


def _mean(values: Iterator[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
