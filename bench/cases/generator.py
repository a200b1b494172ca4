"""The whole generator, folded, one window of frames in bf16; and with its linears in fp8."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Way
from vr_trt.bench.cases.networks import captured, filled, half, normal
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_products import e4m3_network
from vr_trt.export.calibrate import Sample, amax_of, observe
from vr_trt.export.calibration_table import CalibrationTable
from vr_trt.export.config import GENERATOR_3B, GENERATOR_7B, GeneratorConfig, generator_3b_style
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.kernels.window_tables import packed_windows
from vr_trt.kernels.windows import Grid

TEXT = 58
SIZES: dict[str, tuple[GeneratorConfig, Grid, int]] = {
    "3B 720p, 21 frames": (GENERATOR_3B, (6, 45, 80), 0),
    "3B 1080p, 21 frames": (GENERATOR_3B, (6, 68, 120), 3),
    "7B 720p, 21 frames": (GENERATOR_7B, (6, 45, 80), 3),
}
TINY = generator_3b_style(width=64, heads=2, head_width=32, layers=2, text_width=8, shared_from=1)
LIMIT = 0.1  # of bf16 through all layers, against fp32
FP8_LIMIT = 0.3
CALIBRATED = 2, 12, 20  # tokens at most of what fp8's scales are taken from
SEED = 0  # of the weights
SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    config: GeneratorConfig
    grid: Grid
    noise: Tensor  # [1, 16, T, h, w] bf16
    latent: Tensor

    @property
    def folded(self) -> FoldedGenerator:
        """The network, on the device in fp32; the same every time."""
        return _network(self.config, str(self.noise.device))


@lru_cache(maxsize=1)
def _network(config: GeneratorConfig, device: str) -> FoldedGenerator:
    folded = filled(lambda: FoldedGenerator(config, TEXT), device, SEED)
    folded.text.copy_(normal(device, SEED, *folded.text.shape))
    return folded


def make(config: GeneratorConfig, grid: Grid) -> Callable[[str, int], Inputs]:
    """Random noise and latent."""
    T, rows, columns = grid
    shape = 1, config.latent_channels, T, 2 * rows, 2 * columns

    def inputs(device: str, seed: int) -> Inputs:
        noise, latent = (normal(device, seed + i, *shape) for i in range(2))
        return Inputs(config=config, grid=grid, noise=noise, latent=latent)

    return inputs


def reference(given: Inputs) -> tuple[Tensor, ...]:
    """In fp32."""
    network = StaticGenerator(given.folded, given.grid).to(given.noise.device)
    with torch.no_grad():
        return (network(given.noise.float(), given.latent.float()),)


def ours(given: Inputs) -> Callable[[], Tensor]:
    """The triton backend's stage, captured as it is in a run."""
    device = given.noise.device
    folded = deepcopy(given.folded).to(half(device.type))
    stage = TritonGenerator(folded, given.grid)
    stage.inputs["noise"].copy_(given.noise)
    stage.inputs["latent"].copy_(given.latent)
    return captured(stage.run, stage.outputs["restored"])


def ours_fp8(given: Inputs) -> Callable[[], Tensor]:
    """The same in fp8, its scales taken from random latents of a smaller size."""
    folded, device = given.folded, given.noise.device
    T, rows, columns = (min(n, m) for n, m in zip(given.grid, CALIBRATED, strict=True))
    small = 1, given.config.latent_channels, T, 2 * rows, 2 * columns
    noise, latent = (normal(device.type, SEED + i, *small) for i in (7, 8))
    seen = observe(folded, [Sample(latent, noise, noise)])
    table = CalibrationTable(
        model="random", weights="", method="amax", clips=(), windows=1,
        amax=amax_of(seen, "amax"),
    )  # fmt: skip
    stage = TritonGenerator(e4m3_network(folded, table, half(device.type)), given.grid)
    stage.inputs["noise"].copy_(given.noise)
    stage.inputs["latent"].copy_(given.latent)
    return captured(stage.run, stage.outputs["restored"])


def plain(given: Inputs) -> Callable[[], Tensor]:
    """PyTorch in bf16, windows batched by shape."""
    return without_gradients(_in_bf16(given))


def compiled(given: Inputs) -> Callable[[], Tensor]:
    """The same by torch.compile."""
    return without_gradients(torch.compile(_in_bf16(given), dynamic=False))


def _in_bf16(given: Inputs) -> Callable[[], Tensor]:
    folded = deepcopy(given.folded).bfloat16()
    network = StaticGenerator(folded, given.grid).to(given.noise.device)
    return lambda: network(given.noise, given.latent)


def flops(config: GeneratorConfig, grid: Grid) -> float:
    """Of the linears per token and of the windows' attention; spec §9."""
    inner = config.heads * config.head_width
    mlp = (3 if config.mlp == "swiglu" else 2) * config.mlp_width
    linears = 2 * config.width * (3 * inner + inner + mlp)
    tokens = float(np.prod(grid)) + TEXT
    attention = 0.0
    for layer in range(config.layers):
        lengths = np.diff(packed_windows(grid, bool(layer % 2), TEXT).starts).astype(float)
        attention += 4 * inner * float((lengths**2).sum())
    return config.layers * linears * tokens + attention


def weight_bytes(config: GeneratorConfig) -> float:
    """Of the linears in bf16; the text's own where it has some."""
    inner = config.heads * config.head_width
    mlp = (3 if config.mlp == "swiglu" else 2) * config.mlp_width
    copies = sum(1 if config.shared(layer) else 2 for layer in range(config.layers))
    return 2.0 * copies * config.width * (4 * inner + mlp)


def case(name: str, config: GeneratorConfig, grid: Grid, importance: int) -> Case:
    """One model at one size."""
    latents = 3 * config.latent_channels * 4 * float(np.prod(grid))  # two in, one out
    ways: dict[str, Way] = {OURS: ours, PYTORCH: plain, COMPILED: compiled}
    return Case(
        name=f"generator {name}",
        kernel="generator",
        importance=importance,
        work=Work(unit="wide", flops=flops(config, grid), bytes=weight_bytes(config) + 2 * latents),
        limit=LIMIT,
        make=make(config, grid),
        reference=reference,
        ways=ways,
        shape={"tokens": int(np.prod(grid)), "layers": config.layers},
        seconds=SECONDS,
    )


def fp8_case(name: str, config: GeneratorConfig, grid: Grid, importance: int) -> Case:
    """The same with the linears in fp8."""
    wide = case(name, config, grid, importance)
    return replace(
        wide,
        name=f"{wide.name}, fp8",
        kernel="generator fp8",
        work=replace(wide.work, unit="fp8", bytes=wide.work.bytes - weight_bytes(config) / 2),
        limit=FP8_LIMIT,
        ways={OURS: ours_fp8},
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        size = ("tiny", TINY, (2, 3, 4), 0)
        return [case(*size), fp8_case(*size)]
    made = [case(name, *size) for name, size in SIZES.items()]
    first = next(iter(SIZES))
    return [*made, fp8_case(first, *SIZES[first][:2], 1)]
