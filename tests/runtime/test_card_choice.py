"""Which backend a card has room for: invented caches and cards."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.engine_graphs import make_spec

from vr_trt.engines.builder import BACKENDS
from vr_trt.engines.cache import About, Engine
from vr_trt.engines.cards import GIB, wide_canvas
from vr_trt.engines.profiles import find_profile
from vr_trt.engines.selection import CPU, Asked, Machine, needed_stages, select
from vr_trt.engines.triton_card import TritonUse
from vr_trt.engines.triton_law import Way, triton_stage
from vr_trt.runtime import card_choice
from vr_trt.runtime.card_choice import card_of, choose_for_card

MODEL, PROFILE = "seedvr2-3b", find_profile("1080p")
CANVAS = wide_canvas(PROFILE)
ASKED = Asked(model=MODEL, canvas=CANVAS, profile_precision="bf16", cut=True)
ALL = frozenset(BACKENDS)


@pytest.fixture(autouse=True)
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts can take turns."""
    monkeypatch.setattr(card_choice, "_has_cuda_python", lambda: True)


def machine(gib: int) -> Machine:
    return Machine(sm=90, memory=gib * GIB, installed=ALL, runs=ALL)


def engines(backend: str, *, cut: bool = False) -> list[Engine]:
    """All stages, built slowly; triton's say what the law says."""
    made = []
    for stage in needed_stages(cut=cut):
        facts: dict[str, Any] = {}
        if backend == "triton":
            facts = {"sm_90": {"card": asdict(triton_stage(MODEL, stage, CANVAS, Way()))}}
        about = About(
            source=MODEL, profile="1080p", canvas=CANVAS, seconds={"all": 900.0}, facts=facts
        )
        spec = make_spec(
            model=MODEL, stage=stage, backend=backend, precision="bf16",
            targets=() if backend == CPU else (90,),
        )  # fmt: skip
        made.append(Engine(folder=Path(stage), spec=spec, about=about, files={}))
    return made


BOTH = [*engines("tensorrt", cut=True), *engines("triton")]


@pytest.mark.parametrize(("gib", "taken"), [(80, "tensorrt"), (48, "triton"), (24, "triton")])
def test_the_first_backend_that_has_room_serves(gib: int, taken: str) -> None:
    """With a line about one that is passed over; what does not matter is the order of the cache."""
    found, card = choose_for_card(ASKED, machine(gib), BOTH[::-1], MODEL, PROFILE)
    assert {*found.backends.values()} == {taken} and card is not None and card.fits
    passed = [note for note in found.notes if note.startswith("tensorrt is passed over: it needs")]
    assert len(passed) == (taken != "tensorrt")
    assert isinstance(card, TritonUse) == (taken == "triton")


def test_where_none_has_room_the_first_says_what_would_do() -> None:
    found, card = choose_for_card(ASKED, machine(12), BOTH, MODEL, PROFILE)
    assert {*found.backends.values()} == {"tensorrt"} and card is not None and not card.fits
    assert card.advice.startswith("--profile 720p fits (triton: bf16")


def test_what_was_asked_for_is_not_exchanged() -> None:
    asked = replace(ASKED, backend="tensorrt")
    found, card = choose_for_card(asked, machine(24), BOTH, MODEL, PROFILE)
    assert {*found.backends.values()} == {"tensorrt"} and card is not None and not card.fits
    assert card.advice == "--backend triton fits (bf16, all take turns)"


def test_without_engines_of_another_backend_nothing_is_exchanged() -> None:
    """The CPU's neither: it would take days."""
    built = [*engines("tensorrt", cut=True), *engines(CPU)]
    found, card = choose_for_card(ASKED, machine(24), built, MODEL, PROFILE)
    assert {*found.backends.values()} == {"tensorrt"} and card is not None
    assert card.advice == "--backend triton fits (bf16, all take turns)"


def test_a_film_s_rings_count_before_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    first = card_of(MODEL, PROFILE, select(ASKED, machine(80), BOTH), machine(80))
    assert first is not None
    left = first.usable - first.needed
    for more, taken in ((left, "tensorrt"), (left + 1, "triton")):
        monkeypatch.setattr(card_choice, "usual_rings", lambda *given, more=more: more)
        found, _ = choose_for_card(ASKED, machine(80), BOTH, MODEL, PROFILE)
        assert {*found.backends.values()} == {taken}


def test_what_is_still_to_be_built_is_counted_by_the_law() -> None:
    asked = replace(ASKED, backend="triton")
    quick = [
        replace(e, about=replace(e.about, canvas=replace(CANVAS, width=640), seconds={"all": 1.0}))
        for e in engines("triton")
    ]
    found, card = choose_for_card(asked, machine(80), quick, MODEL, PROFILE)
    built, same = choose_for_card(asked, machine(80), engines("triton"), MODEL, PROFILE)
    assert (found.how, built.how) == ("build", "exact") and card is not None and same is not None
    assert card.needed == same.needed
