"""What engines of the triton backend take of a card together, alone and beside TensorRT's."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.engine_graphs import make_spec

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.card_budget import CONTEXT_BYTES, Settings, budget, picture_bytes
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.selection import CPU, Selection, needed_stages
from vr_trt.engines.triton_card import CardBytes, bytes_together, triton_use

CANVAS = Canvas(width=1280, height=720, latents=6, step=1)
STAGES = needed_stages(cut=False)
NUMBERS = {s: CardBytes(own=i + 1, arena=100 * i, states=1000 * i) for i, s in enumerate(STAGES)}
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
    own = sum(range(1, len(STAGES) + 1))
    encode, decode = (
        max(NUMBERS[s].states for s in STAGES if s.startswith(v)) for v in ("encode", "decode")
    )
    generator = max(NUMBERS[s].states for s in STAGES if s.startswith("generator"))
    arena = max(card.arena for card in NUMBERS.values())
    assert bytes_together(every, 90) == own + arena + encode + decode + generator
    assert bytes_together([], 90) == 0


def test_an_engine_that_does_not_say_is_not_guessed_at() -> None:
    silent = engine("generator", facts={})
    assert bytes_together([engine("decode_step"), silent], 90) is None
    assert bytes_together([engine("decode_step")], 86) is None  # built for another chip


def test_all_on_triton() -> None:
    chosen = selection("triton")
    found = triton_use("seedvr2-3b", chosen, Settings(precision="bf16"), 90, MEMORY)
    held = bytes_together(chosen.engines.values(), 90)
    assert found is not None and held is not None
    assert found.needed == held + CONTEXT_BYTES + picture_bytes(CANVAS)
    assert found.fits and found.usable < MEMORY
    small = triton_use("mine", chosen, Settings(precision="bf16"), 90, 1 << 29)
    assert small is not None and not small.fits and "smaller --profile" in small.advice


def test_what_tensorrt_runs_beside_it_is_counted_by_its_law() -> None:
    settings = Settings(precision="bf16", streamed=True)
    found = triton_use("seedvr2-3b", selection("tensorrt"), settings, 90, MEMORY)
    ours = [engine(stage) for stage in STAGES if not stage.startswith("decode")]
    held = bytes_together(ours, 90)
    network, decoder = NETWORKS["seedvr2-3b"], {"decode_start", "decode_step"}
    theirs = budget(network, CANVAS, settings, decoder)
    assert found is not None and held is not None
    assert found.needed == held + theirs.peak
    assert set(theirs.stages) == {*decoder, "to_video"} and theirs.moved == 0
    assert theirs.peak < budget(network, CANVAS, settings).peak
    assert triton_use("mine", selection("tensorrt"), settings, 90, MEMORY) is None


def test_what_the_cpu_runs_takes_nothing_of_the_card() -> None:
    settings = Settings(precision="bf16")
    found = triton_use("seedvr2-3b", selection(CPU), settings, 90, MEMORY)
    whole = triton_use("seedvr2-3b", selection("triton"), settings, 90, MEMORY)
    assert found is not None and whole is not None and found.needed < whole.needed
