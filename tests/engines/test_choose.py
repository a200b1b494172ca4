"""The canvas that a picture is restored on: exact, built now, or padded to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine_graphs import make_spec

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.choose import BUILD_AT_ONCE, Wish, choose

STAGES = ("encode_step", "generator")
SLOW = {"all": BUILD_AT_ONCE, "graphs": 5.0}
WIDE = Canvas(width=1280, height=720, latents=6, step=1)
TALL = Canvas(width=720, height=1280, latents=6, step=1)


def engines(canvas: Canvas, seconds: dict[str, float] = SLOW, **changes: Any) -> list[Engine]:
    about = About(source="tiny", profile="720p", canvas=canvas, seconds=seconds)
    return [
        Engine(folder=Path(s), spec=make_spec(stage=s, **changes), about=about, files={})
        for s in STAGES
    ]


def wish(width: int, height: int, **changes: Any) -> Wish:
    canvas = Canvas(width=width, height=height, latents=6, step=1)
    fields = {"model": "tiny", "backend": "tensorrt-rtx", "target": 89, "stages": {*STAGES}}
    return Wish(canvas=canvas, **{**fields, **changes})


def test_an_exact_engine_comes_first() -> None:
    choice = choose(wish(720, 1280), [*engines(WIDE), *engines(TALL)])
    assert choice.how == "exact" and choice.canvas == TALL
    assert [engine.about.canvas for engine in choice.engines] == [TALL, TALL]
    assert "exactly 720x1280" in choice.reason


def test_a_fast_backend_builds_the_exact_size() -> None:
    choice = choose(wish(960, 720), engines(WIDE, {"all": 20.0, "graphs": 10.0}))
    assert choice.how == "build" and (choice.canvas.width, choice.engines) == (960, ())
    assert "in 50 s" in choice.reason  # two stages and their graphs


def test_a_slow_backend_pads_to_the_nearest() -> None:
    larger = Canvas(width=1920, height=1088, latents=6, step=1)
    choice = choose(wish(960, 720), [*engines(larger), *engines(WIDE), *engines(TALL)])
    assert choice.how == "pad" and choice.canvas == WIDE
    assert choice.reason == "960x720 padded to the engines of 1280x720, 33% more pixels"


def test_nothing_holds_it() -> None:
    choice = choose(wish(1296, 720), engines(WIDE))
    assert choice.how == "none" and choice.canvas.width == 1296
    assert "built: 1280x720" in choice.reason and "--size 1296x720" in choice.reason
    assert choose(wish(64, 64), []).reason.count("none") == 1


@pytest.mark.parametrize(
    "others",
    [
        engines(WIDE, model="other"),
        engines(WIDE, backend="tensorrt"),
        engines(WIDE, targets=(120,)),
        engines(WIDE, targets=()),
        engines(WIDE)[:1],  # a stage is missing
        engines(replace(WIDE, latents=5)),
        engines(replace(WIDE, step=2)),
    ],
)
def test_engines_of_another_kind_do_not_count(others: list[Engine]) -> None:
    assert choose(wish(1280, 720), engines(WIDE)).how == "exact"
    wanted = wish(1280, 720)
    other_model = [replace(e, about=replace(e.about, source="x")) for e in others]
    assert choose(wanted, other_model).how == "none"


def test_precision_and_target_narrow_it_down() -> None:
    built = engines(WIDE, targets=())
    assert choose(wish(1280, 720, target=None), built).how == "exact"
    assert choose(wish(1280, 720, target=None, precision="fp16"), built).how == "exact"
    assert choose(wish(1280, 720, target=None, precision="bf16"), built).how == "none"


CELLS = st.integers(1, 120).map(lambda cells: 16 * cells)


@given(CELLS, CELLS, st.lists(st.tuples(CELLS, CELLS), max_size=6))
def test_what_is_chosen_holds_the_picture(
    width: int, height: int, sizes: list[tuple[int, int]]
) -> None:
    built = [
        engine for w, h in sizes for engine in engines(Canvas(width=w, height=h, latents=6, step=1))
    ]
    choice = choose(wish(width, height), built)
    holding = [w * h for w, h in sizes if w >= width and h >= height]
    assert (choice.how == "none") == (not holding)
    if holding:
        assert choice.canvas.width >= width and choice.canvas.height >= height
        assert choice.how == "exact" or choice.canvas.width * choice.canvas.height == min(holding)
