"""Checkpoint files of true names, keys and shapes, filled with random numbers.

No published weights can stand in tests and benchmarks; these files are as large, and a network
that runs on them stays in a useful range.
"""

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch

from vr_trt.export.checkpoint_safetensors import DTYPES
from vr_trt.export.config import GeneratorConfig, VaeConfig
from vr_trt.export.keys import (
    Shape,
    Shapes,
    expected_generator,
    expected_vae,
    is_rope_buffer,
)
from vr_trt.kernels.rope import frequencies

Config = GeneratorConfig | VaeConfig


def random_checkpoint(
    config: Config, path: Path, dtype: torch.dtype = torch.float16, seed: int = 0
) -> Path:
    """Write random weights of `config` to `path`, a .safetensors file, one tensor at a time.

    Equal arguments give equal files.
    """
    code = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in expected_shapes(config).items():
        first, end = end, end + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": code, "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in random_tensors(config, seed):
            file.write(values.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return path


def expected_shapes(config: Config) -> Shapes:
    """The keys and shapes of the network of `config`."""
    if isinstance(config, GeneratorConfig):
        return expected_generator(config)
    return expected_vae(config)


def random_tensors(config: Config, seed: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every key of `config` with its float32 values; each depends on `seed` and its key alone."""
    for key, shape in expected_shapes(config).items():
        if is_rope_buffer(key) and isinstance(config, GeneratorConfig):
            yield key, torch.from_numpy(frequencies(config.rope, config.head_width))
        else:
            yield key, _values(key, shape, seed)


def _values(key: str, shape: Shape, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode()))
    values = torch.randn(shape, generator=random)
    if len(shape) > 1:
        return values.div_(math.sqrt(math.prod(shape[1:])))
    if "norm" in key and key.endswith("weight"):
        return values.mul_(0.1).add_(1)
    if "ada." in key:  # the scales carry the 1 of "1 + scale"; the gates and shifts do not
        return values.div_(math.sqrt(shape[0])).add_(float(key.endswith("_scale")))
    return values.mul_(0.02)  # biases
