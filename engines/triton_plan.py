"""A plan of the `triton` backend: a stage's folded tensors by name, and the size it is for.

PyTorch's own file, read by mapping it. Opening one needs torch and triton, and nothing of export's
tools.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from vr_trt.engines.static_stage import StaticStage
from vr_trt.engines.triton_generator import PATCH, TritonGenerator
from vr_trt.engines.triton_products import check_device, e4m3_linears
from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.export.config import GeneratorConfig
from vr_trt.export.folded_generator import FoldedGenerator


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonPlan:
    """A generator for latents of one shape [1, 16, T, h, w]."""

    stage: str
    config: GeneratorConfig
    latent: tuple[int, ...]
    state: Mapping[str, Tensor]  # of the FoldedGenerator


def empty_generator(config: GeneratorConfig, text_tokens: int) -> FoldedGenerator:
    """A folded generator without tensors."""
    with torch.device("meta"):
        return FoldedGenerator(config, text_tokens)


def write_plan(plan: TritonPlan, path: Path) -> None:
    """Write `plan` to `path`, tensor after tensor."""
    torch.save(
        {
            "stage": plan.stage,
            "config": asdict(plan.config),
            "latent": list(plan.latent),
            "state": dict(plan.state),
        },
        path,
    )


def read_plan(path: Path) -> TritonPlan:
    """The plan in `path`, its tensors mapped; ModelError where it is none."""
    try:
        content = torch.load(path, mmap=True, weights_only=True)
        return TritonPlan(
            stage=content["stage"],
            config=GeneratorConfig(**content["config"]),
            latent=tuple(content["latent"]),
            state=content["state"],
        )
    except (KeyError, OSError, RuntimeError, TypeError, UnpicklingError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is no plan of triton's ({said}): build it again") from None


def open_stage(path: Path, device: torch.device) -> StaticStage:
    """The stage of the plan in `path`, on `device`.

    ModelError for a plan that is damaged, MemoryBudgetError where it does not fit.
    """
    plan = read_plan(path)
    _, _, T, h, w = plan.latent
    check_device(plan.state, device)
    network = e4m3_linears(empty_generator(plan.config, len(plan.state["text"])), plan.state)
    try:
        state = {name: tensor.to(device) for name, tensor in plan.state.items()}
        network.load_state_dict(state, assign=True)
        return TritonGenerator(network.requires_grad_(False), (T, h // PATCH, w // PATCH))
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryBudgetError(
            f"{plan.stage} does not fit on the GPU: choose a smaller profile ({error})"
        ) from None
    except RuntimeError as error:  # what load_state_dict says of names and shapes
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not hold {plan.stage} ({said}): build it again") from None
