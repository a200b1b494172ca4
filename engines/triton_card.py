"""What engines of the `triton` backend take of a card together, as their manifests say; no torch.

Every stage's buffers are made when it is opened and stay. The arena, which is the activations, is
one for all stages; a coder's states are one for its start and its steps, and generators with the same
weights share them. Where that is too much, parts take turns (`engines.rota`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vr_trt.engines.cache import Engine
from vr_trt.engines.card_budget import CONTEXT_BYTES, Settings, budget, picture_bytes
from vr_trt.engines.cards import CardUse, usable_bytes
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.profiles import FRAMES_PER_LATENT
from vr_trt.engines.rota import (
    GENERATOR,
    NOBODY,
    PARTS,
    Rota,
    best_rota,
    in_words,
    least_rota,
    part_of,
)
from vr_trt.engines.selection import CPU, Selection

_SMALLER = "choose a smaller --profile"
_WITHOUT_COPIES = (
    "choose a smaller --profile, or pip install cuda-python, which lets parts of the networks take "
    "turns there"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardBytes:
    """Of one stage."""

    own: int  # weights, inputs, outputs, and what the arena does not hold
    arena: int
    states: int
    weights: int = 0  # of `own`: a generator's, which all stages with the same weights share


def stage_bytes(engine: Engine, sm: int) -> CardBytes | None:
    """Of an engine on compute capability `sm`; None where its manifest does not say."""
    facts: Mapping[str, Any] = engine.about.facts.get(f"sm_{sm}", {})
    return CardBytes(**facts["card"]) if "card" in facts else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """What a run on several engines holds at once, if all of its parts lie beside each other."""

    bytes: int
    parts: Mapping[str, int]  # of them, what each part would bring if it took turns


def held_together(engines: Iterable[Engine], sm: int) -> Together | None:
    """Of a run on all of `engines`; None where one of them does not say.

    A run may have every stage open: a picture among a film's shots opens the pictures' stages too.
    """
    stages = []
    for engine in engines:
        found = stage_bytes(engine, sm)
        if found is None:
            return None
        weights = f"{sorted(engine.spec.weights.items())} {engine.spec.precision}"
        stages.append((engine.spec.stage, weights, found))
    return add_up(stages)


def add_up(stages: Iterable[tuple[str, str, CardBytes]]) -> Together:
    """Of `stages`: the name, what tells its weights from others, its bytes.

    Generators with the same weights hold them once.
    """
    arena, own, parts = 0, 0, dict.fromkeys(PARTS, 0)
    generators: dict[str, int] = {}  # bytes, by the weights
    for stage, weights, found in stages:
        arena, own = max(arena, found.arena), own + found.own - found.weights
        part = part_of(stage)
        parts[part] = max(parts[part], found.states)
        if found.weights:
            generators[weights] = max(found.weights, generators.get(weights, 0))
    brought = sum(generators.values())
    held = arena + own + sum(parts.values()) + brought
    if len(generators) == 1:  # several of them cannot take turns in one place
        parts[GENERATOR] += brought
    return Together(bytes=held, parts=parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """What may take turns in a run."""

    parts: Mapping[str, int]  # with what each would bring, in bytes
    able: bool  # whether what copies is installed
    frames: int  # of the film, for every window of the generator
    otherwise: str = _SMALLER  # the advice where no turns help


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a run knows beside its engines."""

    overlap: int  # latents that windows share
    able: bool = True  # whether parts can take turns
    otherwise: str = _SMALLER  # the advice where no turns help
    planned: Together | None = None  # of engines that are still to be built


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonUse(CardUse):
    """A `CardUse` of a run of which parts may take turns on the card.

    `needed` is with those that do: the fewest bytes over the bus that fit, or, where none fit, the
    least of the card.
    """

    whole: int  # bytes where nothing takes turns
    turns: Turns
    rota: Rota

    @classmethod
    def of(cls, whole: int, usable: int, turns: Turns) -> "TritonUse":
        rota, advice = best_rota(turns.parts, whole, usable), turns.otherwise
        if rota is None:
            rota = least_rota(turns.parts)
            if rota.sizes:
                advice += f"; {in_words(rota.sizes)} would take turns there already"
        if rota.sizes and not turns.able:
            rota, advice = NOBODY, _WITHOUT_COPIES
        return cls(
            needed=whole - rota.spared, usable=usable, advice=advice,
            whole=whole, turns=turns, rota=rota,
        )  # fmt: skip

    def with_more(self, size: int) -> "TritonUse":
        return self.of(self.whole + size, self.usable, self.turns)

    @property
    def moved(self) -> int:
        """Bytes over the bus for every frame, beside the frames."""
        return self.rota.moved // self.turns.frames


def triton_use(
    model: str, selection: Selection, settings: Settings, card: tuple[int, int], known: Known
) -> CardUse | None:
    """Of a card by a run of which some networks, or all, are on triton.

    `settings` are those of the networks that TensorRT runs; `card`: its compute capability and its
    bytes. None where it is not known.
    """
    sm, memory = card
    every = selection.engines
    held = known.planned
    if selection.how != "build":
        held = held_together([e for e in every.values() if e.spec.backend == "triton"], sm)
    others = {stage for stage, e in every.items() if e.spec.backend not in ("triton", CPU)}
    if held is None or (others and model not in NETWORKS):
        return None
    rest = CONTEXT_BYTES + picture_bytes(selection.canvas)
    if others:
        rest = budget(NETWORKS[model], selection.canvas, settings, others).peak
    frames = FRAMES_PER_LATENT * max(1, selection.canvas.latents - known.overlap)
    turns = Turns(parts=held.parts, able=known.able, frames=frames, otherwise=known.otherwise)
    return TritonUse.of(held.bytes + rest, usable_bytes(memory), turns)
