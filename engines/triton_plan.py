"""A plan of the `triton` backend: a stage's folded tensors by name, and the size it is for.

PyTorch's own file, read by mapping it. Opening one needs torch and triton, and nothing of export's
tools.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig, VaeConfig

Config = GeneratorConfig | VaeConfig
FORMAT = 2
DTYPES = {
    "fp32": torch.float32,  # for tests: the builder makes none
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,  # of what stays wide
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonPlan:
    """One stage of a network, for inputs of one size."""

    stage: str
    config: Config
    precision: str
    sizes: tuple[int, ...]  # of `latent` or `x`: [1, C, T, h, w]
    state: Mapping[str, Tensor]  # of the folded network: what the stage uses of it
    stream: float = 1.0  # of a coder's `Form`
    amax: Mapping[str, float] = field(default_factory=dict)  # of the inputs of layers in E4M3

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, and of weights that are not in E4M3."""
        return DTYPES[self.precision]


def write_plan(plan: TritonPlan, path: Path) -> None:
    """Write `plan` to `path`, tensor after tensor."""
    names = {name: getattr(plan, name) for name in TritonPlan.__dataclass_fields__}
    plain = {"config": asdict(plan.config), "sizes": list(plan.sizes), "state": dict(plan.state)}
    torch.save({"format": FORMAT, **names, **plain, "amax": dict(plan.amax)}, path)


def read_plan(path: Path) -> TritonPlan:
    """The plan in `path`, its tensors mapped; ModelError where it is none."""
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
        if content.pop("format", None) != FORMAT:
            raise ValueError("of another version")
        config = content.pop("config")
        kind = GeneratorConfig if content["stage"].startswith("generator") else VaeConfig
        if kind is VaeConfig:
            config["channels"] = tuple(config["channels"])
        return TritonPlan(
            config=kind(**config), sizes=tuple(content.pop("sizes")), **content
        )  # fmt: skip
    except (
        AttributeError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        UnpicklingError,
        ValueError,
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is no plan of triton's ({said}): build it again") from None
