"""The stage of a plan: on a device, ready to run, or as shapes, to see what it launches and holds."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.static_stage import StaticStage
from vr_trt.engines.triton_generator import PATCH, TritonGenerator
from vr_trt.engines.triton_plan import TritonPlan, read_plan
from vr_trt.engines.triton_products import check_device, e4m3_linears
from vr_trt.engines.triton_vae import Call, TritonCoderStage
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.export.config import GeneratorConfig, VaeConfig
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.sub_pixel import SubPixelConv
from vr_trt.export.vae import Decoder, Encoder, Form
from vr_trt.kernels.tuning import capability_of

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the stages of a run have in common, for they take turns on one stream of one device."""

    device: torch.device
    memory: Tensor  # of the coders' arenas, as large as the largest
    states: Mapping[str, dict[str, Tensor]] = field(
        default_factory=lambda: {"encode": {}, "decode": {}}
    )
    stream: torch.cuda.Stream | None = None  # on which they take turns; None: on the CPU

    @classmethod
    def of(cls, plans: Iterable[Path], device: torch.device) -> "Shared":
        """For the stages of `plans`; MemoryBudgetError where the device has no room."""
        sizes = [0]
        for path in plans:
            plan = read_plan(path)
            with _opening(path, plan.stage):
                sizes.append(arena_bytes(plan, _chip(device)))
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        try:
            memory = torch.empty(max(sizes), dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError:
            raise MemoryBudgetError(
                f"the VAE needs {max(sizes) >> 20} MiB of the GPU for its activations, which are not "
                "free: choose a smaller --profile"
            ) from None
        return cls(device, memory, stream=stream)


def open_stage(path: Path, shared: Shared) -> StaticStage:
    """The stage of the plan in `path`, on the device of `shared`.

    ModelError for a plan that is damaged, MemoryBudgetError where it does not fit.
    """
    plan = read_plan(path)
    check_device(plan.state, shared.device)
    with _opening(path, plan.stage):
        state = {name: tensor.to(shared.device) for name, tensor in plan.state.items()}
        if plan.stage.startswith("generator"):
            return _generator(plan, state)
        states = shared.states[plan.stage.partition("_")[0]]
        return _coder(plan, state, states, Arena(shared.memory))


@contextmanager
def _opening(path: Path, stage: str) -> Iterator[None]:
    """What PyTorch says, in a line of ours."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryBudgetError(
            f"{stage} does not fit on the GPU: choose a smaller profile ({error})"
        ) from None
    except RuntimeError as error:  # what load_state_dict says of names and shapes
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not hold {stage} ({said}): build it again") from None


def lay_out(plan: TritonPlan, chip: int | None) -> StaticStage:
    """The stage as shapes, tuned for `chip` (None: as the CPU interprets it); nothing is held."""
    if plan.stage.startswith("generator"):
        return _generator(plan, _shapes(plan))
    return lay_out_coder(plan, chip)


def lay_out_coder(plan: TritonPlan, chip: int | None) -> TritonCoderStage:
    """The same of a plan that is a coder's."""
    return _coder(plan, _shapes(plan), {}, Arena(), chip)


def arena_bytes(plan: TritonPlan, chip: int | None) -> int:
    """What the stage asks of the memory that stages share."""
    if plan.stage.startswith("generator"):
        return 0
    return lay_out_coder(plan, chip).arena.size


def empty_generator(plan: TritonPlan) -> FoldedGenerator:
    """The folded generator of a plan, without tensors; its E4M3 linears are what the plan has."""
    assert isinstance(plan.config, GeneratorConfig)
    with META:
        network = FoldedGenerator(plan.config, len(plan.state.get("text", ())))
    return e4m3_linears(network, plan.state)


def empty_coder(plan: TritonPlan) -> Coder:
    """The folded coder of a plan's stage, without tensors."""
    verb, call = _verb_and_call(plan.stage)
    assert isinstance(plan.config, VaeConfig)
    form = Form(taps=1 if call == "image" else 3, folded=True, stream=plan.stream)
    with META:
        return (Encoder if verb == "encode" else Decoder)(plan.config, form)


def needed_tensors(network: Coder, used: Iterable[str]) -> list[str]:
    """The tensors of a stage whose convolutions `used`: a call has not all sub-pixel sets."""
    used = frozenset(used)

    def is_needed(name: str) -> bool:
        module = name.rpartition(".")[0]
        return module in used or not isinstance(network.get_submodule(module), SubPixelConv)

    return [name for name in network.state_dict() if is_needed(name)]


def fit_sub_pixels(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Sub-pixel weights may do without their channel of ones (see `export.fold_vae`)."""
    for name, module in network.named_modules():
        if isinstance(module, SubPixelConv) and (weight := state.get(f"{name}.weight")) is not None:
            channels = module.weight.shape[1]
            if weight.shape[1] == channels - 1:
                module.weight = nn.Parameter(module.weight[:, : channels - 1])


def _shapes(plan: TritonPlan) -> dict[str, Tensor]:
    return {name: tensor.to(META) for name, tensor in plan.state.items()}


def _generator(plan: TritonPlan, state: Mapping[str, Tensor]) -> TritonGenerator:
    _, _, T, h, w = plan.sizes
    network = empty_generator(plan)
    network.load_state_dict(state, assign=True)
    return TritonGenerator(network.requires_grad_(False), (T, h // PATCH, w // PATCH))


def _coder(
    plan: TritonPlan, state: Mapping[str, Tensor], states: dict[str, Tensor], arena: Arena,
    chip: int | None = None,
) -> TritonCoderStage:  # fmt: skip
    network = empty_coder(plan)
    fit_sub_pixels(network, state)
    found = network.load_state_dict(state, strict=False, assign=True)
    layers = pack_coder(network.requires_grad_(False), plan.amax, chip)
    _, _, frames, height, width = plan.sizes
    call = _verb_and_call(plan.stage)[1]
    stage = TritonCoderStage(network, layers, call, (frames, height, width), states, arena)
    lacking = set(found.missing_keys) & {*needed_tensors(network, stage.used)}
    if lacking or found.unexpected_keys:
        raise RuntimeError(f"names {sorted([*lacking, *found.unexpected_keys])}")
    return stage


def _verb_and_call(stage: str) -> tuple[str, Call]:
    verb, call = stage.split("_")
    return verb, cast(Call, call)


def _chip(device: torch.device) -> int | None:
    return capability_of(device) if device.type == "cuda" else None
