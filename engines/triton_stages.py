"""The stage of a plan: on a device, ready to run, or as shapes, to see what it launches and holds."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vr_trt.engines.rota import GENERATOR, NOBODY, PARTS, Rota, part_of
from vr_trt.engines.static_arena import Arena, in_a_row, row_bytes
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
_NEXT = "next."


Stage = TritonGenerator | TritonCoderStage


@dataclass(frozen=True, slots=True)
class Shared:
    """What the stages of a run have in common, for they take turns on one stream of one device."""

    device: torch.device
    memory: Tensor  # of their arenas, as large as the largest
    states: Mapping[str, dict[str, Tensor]] = field(
        default_factory=lambda: {"encode": {}, "decode": {}}
    )
    weights: dict[str, Tensor] = field(default_factory=dict)  # of the generator that opened first
    stream: torch.cuda.Stream | None = None  # on which they take turns; None: on the CPU
    rota: Rota = NOBODY  # the parts that take turns
    turns: Tensor | None = None  # where they do
    places: Mapping[str, Tensor] = field(default_factory=dict)  # there, for the generator's weights

    @classmethod
    def of(
        cls, plans: Iterable[Path], device: torch.device, parts: Collection[str] = ()
    ) -> "Shared":
        """For the stages of `plans`, of which `parts` take turns (see `engines.rota`).

        MemoryBudgetError where the device has no room.
        """
        arena = 0
        rows: dict[str, Mapping[str, Tensor]] = {}  # by part: what it would bring
        for path in plans:
            plan = read_plan(path)
            with _opening(path, plan.stage):
                stage = lay_out(plan, _chip(device))
            arena = max(arena, stage.arena.size)
            if row := _row(stage):
                rows[part_of(plan.stage)] = row
        wanted = {part: rows[part] for part in PARTS if part in parts and part in rows}
        return cls.with_room(arena, wanted, device)

    @classmethod
    def with_room(
        cls, arena: int, rows: Mapping[str, Mapping[str, Tensor]], device: torch.device
    ) -> "Shared":
        """With an arena of so many bytes, and places for the tensors of parts that take turns.

        MemoryBudgetError where the device has no room.
        """
        rota = Rota({part: row_bytes(row.values()) for part, row in rows.items()})
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        try:
            memory = torch.empty(arena, dtype=torch.uint8, device=device)
            turns = torch.empty(rota.memory, dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError:
            raise MemoryBudgetError(
                f"the networks need {arena + rota.memory >> 20} MiB of the GPU for what they share, "
                "which are not free: choose a smaller --profile"
            ) from None
        placed = {part: in_a_row(turns, row) for part, row in rows.items()}
        states = {"encode": placed.get("encoder", {}), "decode": placed.get("decoder", {})}
        return cls(
            device, memory, states, stream=stream, rota=rota, turns=turns,
            places=placed.get(GENERATOR, {}),
        )  # fmt: skip


def open_stage(path: Path, shared: Shared) -> Stage:
    """The stage of the plan in `path`, on the device of `shared`.

    Of a part that takes turns, it must be its turn. ModelError for a plan that is damaged,
    MemoryBudgetError where it does not fit.
    """
    plan = read_plan(path)
    check_device(plan.state, shared.device)
    with _opening(path, plan.stage):
        arena = Arena(shared.memory)
        if plan.stage.startswith("generator"):
            return _generator(plan, _weights(plan, shared), arena)
        state = {name: tensor.to(shared.device) for name, tensor in plan.state.items()}
        return _coder(plan, state, shared.states[plan.stage.partition("_")[0]], arena)


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


def lay_out(plan: TritonPlan, chip: int | None) -> Stage:
    """The stage as shapes, tuned for `chip` (None: as the CPU interprets it); nothing is held."""
    if plan.stage.startswith("generator"):
        return _generator(plan, _shapes(plan), Arena())
    return lay_out_coder(plan, chip)


def lay_out_coder(plan: TritonPlan, chip: int | None) -> TritonCoderStage:
    """The same of a plan that is a coder's."""
    return _coder(plan, _shapes(plan), {}, Arena(), chip)


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


def _row(stage: Stage) -> Mapping[str, Tensor]:
    """What a stage that was laid out would bring when its part takes turns; it may be nothing."""
    if isinstance(stage, TritonGenerator):
        return stage.weights
    kept = (name for name in stage.outputs if name.startswith(_NEXT))
    return {name.removeprefix(_NEXT): stage.outputs[name] for name in kept}


def _weights(plan: TritonPlan, shared: Shared) -> Mapping[str, Tensor]:
    """A generator's tensors on the device: another one's with the same values, where there is one.

    A picture's generator has the weights of a video's.
    """
    held, places = shared.weights, shared.places
    if held and _alike(held, plan.state):
        return held
    if places and (held or _kinds(places) != _kinds(plan.state)):
        raise ModelError(
            f"{plan.stage} has other weights than another generator of the run, and they take turns "
            "on the GPU: build both again"
        )
    came = {
        name: places[name].copy_(x) if places else x.to(shared.device)
        for name, x in plan.state.items()
    }
    if not held:
        held.update(came)
    return came


def _kinds(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (x.shape, x.dtype) for name, x in state.items()}


def _alike(held: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Whether both are the same, bit for bit."""
    if _kinds(held) != _kinds(state):
        return False
    bits = ((held[name], x.to(held[name].device)) for name, x in state.items())
    return all(torch.equal(*(x.reshape(-1).view(torch.uint8) for x in pair)) for pair in bits)


def _generator(plan: TritonPlan, state: Mapping[str, Tensor], arena: Arena) -> TritonGenerator:
    _, _, T, h, w = plan.sizes
    network = empty_generator(plan)
    network.load_state_dict(state, assign=True)
    return TritonGenerator(network.requires_grad_(False), (T, h // PATCH, w // PATCH), arena)


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
