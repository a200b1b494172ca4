"""The golden networks, and small ones of any configuration whose every tensor matters."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vr_trt.export.config import (
    GeneratorConfig,
    VaeConfig,
    generator_from_reference,
    vae_from_reference,
)
from vr_trt.export.generator import Generator
from vr_trt.export.golden import read_tensors
from vr_trt.export.random_weights import random_tensors
from vr_trt.export.vae import VideoVae

GOLDEN = Path(__file__).parent / "golden"


def golden_json(name: str) -> Any:
    """A JSON file of the golden folder."""
    return json.loads((GOLDEN / name).read_text())


GOLDEN_GENERATORS: dict[str, GeneratorConfig] = {
    name: generator_from_reference(listed["params"])
    for name, listed in golden_json("dit_cases.json")["configs"].items()
}
GOLDEN_GENERATOR_CASES: list[str] = list(golden_json("dit_cases.json")["cases"])
GOLDEN_VAE = vae_from_reference(golden_json("vae_cases.json")["params"])
GOLDEN_VAE_CASES: list[str] = list(golden_json("vae_cases.json")["cases"])


@cache
def golden_tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file of the golden folder, in fp32."""
    return read_tensors(GOLDEN / f"{name}.safetensors")


@cache
def golden_generator(name: str) -> Generator:
    """One of the golden generators."""
    network = Generator(GOLDEN_GENERATORS[name])
    network.load_state_dict(golden_tensors(f"dit_{name}_weights"))
    return network.eval().requires_grad_(False)


@cache
def golden_vae() -> VideoVae:
    """The golden VAE."""
    return make_vae(GOLDEN_VAE, golden_tensors("vae_tiny_weights"))


def loud_weights(config: GeneratorConfig | VaeConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights whose biases, shifts, scales and gates are large enough to be missed."""
    random = torch.Generator().manual_seed(seed)
    weights = dict(random_tensors(config, seed))
    for name, value in weights.items():
        if value.ndim == 1 and not name.endswith("rope.freqs"):
            weights[name] = value + 0.3 * torch.randn(value.shape, generator=random)
    return weights


def make_generator(config: GeneratorConfig, weights: dict[str, Tensor]) -> Generator:
    """The plain generator of `weights`."""
    network = Generator(config)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def make_vae(config: VaeConfig, weights: dict[str, Tensor]) -> VideoVae:
    """The plain VAE of `weights`."""
    network = VideoVae(config)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
