"""What engines of the `triton` backend take of a card together, as their manifests say; no torch.

Every stage's buffers are made when it is opened and stay. The arena, which is the activations of
the VAE, is one for all stages; a coder's states are one for its start and its steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vr_trt.engines.cache import Engine
from vr_trt.engines.card_budget import CONTEXT_BYTES, Settings, budget, picture_bytes
from vr_trt.engines.cards import USABLE, CardUse
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.selection import CPU, Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class CardBytes:
    """Of one stage."""

    own: int  # weights, inputs, outputs, and what the arena does not hold
    arena: int
    states: int


def stage_bytes(engine: Engine, sm: int) -> CardBytes | None:
    """Of an engine on compute capability `sm`; None where its manifest does not say."""
    facts: Mapping[str, Any] = engine.about.facts.get(f"sm_{sm}", {})
    return CardBytes(**facts["card"]) if "card" in facts else None


def bytes_together(engines: Iterable[Engine], sm: int) -> int | None:
    """What a run on all of `engines` holds at once; None where one of them does not say.

    A run may have every stage open: a picture among a film's shots opens the pictures' stages too.
    """
    of_stage: dict[str, CardBytes] = {}
    for engine in engines:
        found = stage_bytes(engine, sm)
        if found is None:
            return None
        of_stage[engine.spec.stage] = found
    arena = max((found.arena for found in of_stage.values()), default=0)
    states: dict[str, int] = {}
    for stage, found in of_stage.items():
        coder = stage.partition("_")[0]
        states[coder] = max(states.get(coder, 0), found.states)
    return arena + sum(states.values()) + sum(found.own for found in of_stage.values())


def triton_use(
    model: str, selection: Selection, settings: Settings, sm: int, memory: int
) -> CardUse | None:
    """Of a card with `memory` bytes by a run of which some networks, or all, are on triton.

    `settings` are those of the networks that TensorRT runs. None where it is not known.
    """
    every = selection.engines
    held = bytes_together([e for e in every.values() if e.spec.backend == "triton"], sm)
    others = {stage for stage, e in every.items() if e.spec.backend not in ("triton", CPU)}
    if held is None or (others and model not in NETWORKS):
        return None
    rest = CONTEXT_BYTES + picture_bytes(selection.canvas)
    if others:
        rest = budget(NETWORKS[model], selection.canvas, settings, others).peak
    advice = "choose a smaller --profile"
    return CardUse(needed=held + rest, usable=int(memory * USABLE), advice=advice)
