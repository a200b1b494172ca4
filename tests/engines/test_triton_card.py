"""What engines of the triton backend take of a card together, alone and beside TensorRT's."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.engine_graphs import make_spec

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.card_budget import CONTEXT_BYTES, Settings, budget, picture_bytes
from vr_trt.engines.cards import USABLE
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.rota import NOBODY, PARTS
from vr_trt.engines.selection import CPU, Selection, needed_stages
from vr_trt.engines.triton_card import (
    CardBytes,
    Known,
    Together,
    TritonUse,
    held_together,
    triton_use,
)

CANVAS = Canvas(width=1280, height=720, latents=6, step=1)
STAGES = needed_stages(cut=False)
WEIGHTS = 700
NUMBERS = {
    s: CardBytes(own=WEIGHTS + i, arena=100 * i, states=0, weights=WEIGHTS)
    if s.startswith("generator")
    else CardBytes(own=i + 1, arena=100 * i, states=1000 * i)
    for i, s in enumerate(STAGES)
}
MEMORY = 80 << 30


def engine(stage: str, backend: str = "triton", facts: dict[str, Any] | None = None) -> Engine:
    said = {"sm_90": {"card": asdict(NUMBERS[stage])}} if facts is None else facts
    about = About(source="seedvr2-3b", profile="720p", canvas=CANVAS, facts=said)
    spec = make_spec(stage=stage, backend=backend, targets=(90,))
    return Engine(folder=Path(stage), spec=spec, about=about, files={})


def selection(decoder: str) -> Selection:
    backends = {**dict.fromkeys(NETWORK_STAGES, "triton"), "decoder": decoder}
    found = {s: engine(s, decoder if s.startswith("decode") else "triton") for s in STAGES}
    return Selection(
        canvas=CANVAS, how="exact", backends=backends, engines=found, precision="bf16", notes=("",)
    )


def test_arena_and_states_are_shared() -> None:
    every = [engine(stage) for stage in STAGES]
    own = sum(NUMBERS[s].own - NUMBERS[s].weights for s in STAGES)
    encode, decode = (
        max(NUMBERS[s].states for s in STAGES if s.startswith(v)) for v in ("encode", "decode")
    )
    arena = max(card.arena for card in NUMBERS.values())
    found = held_together(every, 90)
    assert found is not None and found.bytes == own + arena + encode + decode + WEIGHTS
    assert found.parts == {"encoder": encode, "generator": WEIGHTS, "decoder": decode}
    nothing = held_together([], 90)
    assert nothing is not None and nothing.bytes == 0


def test_generators_of_other_weights_hold_them_beside_each_other() -> None:
    """And take no turns: there is one place for them."""
    every = [engine(stage) for stage in STAGES]
    alike = held_together(every, 90)
    other = [
        replace(e, spec=replace(e.spec, weights={"other": "ee" * 32}))
        if e.spec.stage == "generator_image"
        else e
        for e in every
    ]
    found = held_together(other, 90)
    assert alike is not None and found is not None
    assert found.bytes == alike.bytes + WEIGHTS and found.parts["generator"] == 0


def test_an_engine_that_does_not_say_is_not_guessed_at() -> None:
    silent = engine("generator", facts={})
    assert held_together([engine("decode_step"), silent], 90) is None
    assert held_together([engine("decode_step")], 86) is None  # built for another chip


def test_engines_of_before_take_no_turns_with_their_weights() -> None:
    card = asdict(NUMBERS["generator"])
    del card["weights"]
    found = held_together([engine("generator", facts={"sm_90": {"card": card}})], 90)
    assert found is not None and found.parts["generator"] == 0
    assert found.bytes == NUMBERS["generator"].own + NUMBERS["generator"].arena


def use(model: str, chosen: Selection, memory: int = MEMORY, **changes: Any) -> TritonUse | None:
    settings = changes.pop("settings", Settings(precision="bf16"))
    found = triton_use(model, chosen, settings, (90, memory), Known(overlap=2, **changes))
    assert found is None or isinstance(found, TritonUse)
    return found


def test_all_on_triton() -> None:
    chosen = selection("triton")
    found, held = use("seedvr2-3b", chosen), held_together(chosen.engines.values(), 90)
    assert found is not None and held is not None
    assert found.needed == held.bytes + CONTEXT_BYTES + picture_bytes(CANVAS)
    assert found.fits and found.usable < MEMORY and found.rota == NOBODY and found.moved == 0
    small = use("mine", chosen, 1 << 29)
    assert small is not None and not small.fits
    assert small.advice == (
        "choose a smaller --profile; encoder, generator and decoder would take turns there already"
    )


def test_parts_take_turns_where_they_must_and_rings_are_counted() -> None:
    """The rings come later than what the engines say, and may be what decides."""
    chosen = selection("triton")
    whole = use("mine", chosen)
    assert whole is not None
    memory = int((whole.needed + 50) / USABLE)
    first = use("mine", chosen, memory)
    assert first is not None and first.rota == NOBODY and first.fits
    later = first.with_more(100)
    assert later.fits and list(later.rota.sizes) == ["encoder", "generator"]
    assert later.needed == first.needed + 100 - later.rota.spared
    assert later.moved == later.rota.moved // (4 * (CANVAS.latents - 2)) > 0
    assert later.with_more(-100) == first
    unable = use("mine", chosen, memory, able=False)
    assert unable is not None and unable.advice == "choose a smaller --profile"
    assert not unable.with_more(100).fits and "cuda-python" in unable.with_more(100).advice
    most = first.with_more(1 << 20)
    assert not most.fits and set(most.rota.sizes) == {*PARTS} and "already" in most.advice


def test_what_tensorrt_runs_beside_it_is_counted_by_its_law() -> None:
    settings = Settings(precision="bf16", streamed=True)
    found = use("seedvr2-3b", selection("tensorrt"), settings=settings)
    ours = [engine(stage) for stage in STAGES if not stage.startswith("decode")]
    held = held_together(ours, 90)
    network, decoder = NETWORKS["seedvr2-3b"], {"decode_start", "decode_step"}
    theirs = budget(network, CANVAS, settings, decoder)
    assert found is not None and held is not None
    assert found.needed == held.bytes + theirs.peak
    assert set(theirs.stages) == {*decoder, "to_video"}
    assert theirs.peak < budget(network, CANVAS, settings).peak
    assert use("mine", selection("tensorrt"), settings=settings) is None


def test_what_the_cpu_runs_takes_nothing_of_the_card() -> None:
    found, whole = use("seedvr2-3b", selection(CPU)), use("seedvr2-3b", selection("triton"))
    assert found is not None and whole is not None and found.needed < whole.needed


def test_engines_that_are_still_to_be_built_are_as_the_law_says() -> None:
    unbuilt = replace(selection("triton"), how="build", engines={})
    planned = Together(bytes=30 << 30, parts={"encoder": 1 << 30, "decoder": 2 << 30})
    found = use("seedvr2-3b", unbuilt, planned=planned)
    assert found and found.needed == planned.bytes + CONTEXT_BYTES + picture_bytes(CANVAS)
    assert use("mine", unbuilt) is None


def test_the_advice_where_no_turns_help_is_the_callers() -> None:
    found = use("mine", selection("triton"), 1, otherwise="--profile 360p fits")
    assert (
        found and not found.fits and found.advice.startswith("--profile 360p fits; encoder, gene")
    )
    assert found.with_more(1).advice == found.advice
