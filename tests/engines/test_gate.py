"""The gate of fp8: what passes, what does not, and who looks at it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine_graphs import make_spec

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.choose import Wish, choose
from vr_trt.engines.gate import AIM, Gate, Score, Window, refusal
from vr_trt.export.calibration_table import find_calibration
from vr_trt.export.models import find_model_files

RESULTS = Path(__file__).parents[2] / "bench/results/cpu-fp8-gate.json"
WIDE = Canvas(width=1280, height=720, latents=6, step=1)


def window(generator: tuple[float, float], frames: tuple[float, float]) -> Window:
    latents, decoded = (Score(fp8=a, other_seed=b) for a, b in (generator, frames))
    return Window(clip="a.mp4", first_latent=0, generator=latents, frames=decoded)


def gate(*windows: Window) -> Gate:
    return Gate(model="tiny", calibration="ab" * 32, recipe=1, windows=windows)


GOOD, GOOD_TOO = window((50.0, 32.0), (55.0, 41.0)), window((40.0, 33.0), (60.0, 41.0))
BAD_LATENTS, BAD_FRAMES = window((31.0, 32.0), (55.0, 41.0)), window((50.0, 32.0), (40.9, 41.0))


def test_fp8_must_be_nearer_in_every_window_and_both_stages() -> None:
    assert gate(GOOD).passed and gate(GOOD, GOOD_TOO).passed
    assert not gate(BAD_LATENTS).passed and not gate(BAD_FRAMES).passed
    assert not gate(GOOD, BAD_FRAMES, GOOD_TOO).passed
    assert not gate().passed


@given(st.floats(), st.floats())
def test_a_score_passes_only_if_it_is_greater(fp8: float, other: float) -> None:
    assert gate(window((fp8, other), (50.0, 41.0))).passed == (
        not math.isnan(fp8) and not math.isnan(other) and fp8 > other
    )


def test_the_worst_window_is_shown() -> None:
    both = gate(GOOD, GOOD_TOO)
    assert both.generator == GOOD_TOO.generator and both.frames == GOOD.frames
    assert str(both) == (
        "gate passed: frames 55.0 dB, another seed 41.0 dB; latents 40.0 dB and 33.0 dB"
    )


def test_a_verdict_is_kept_as_json() -> None:
    for one in (gate(GOOD, BAD_FRAMES), gate(GOOD)):
        content = json.loads(json.dumps(one.as_json()))
        assert Gate.from_json(content) == one and content["passed"] == one.passed


def test_refusals_say_what_to_do() -> None:
    assert refusal(gate(GOOD).as_json(), "tiny") == ""
    remedy = "vr-trt calibrate CLIP… --model tiny"
    for verdict, reason in (
        (None, "never measured"),
        (gate(GOOD, BAD_FRAMES).as_json(), "gate failed: frames 40.9 dB, another seed 41.0 dB"),
        ({"passed": True}, "no valid verdict"),
        ({**gate(BAD_FRAMES).as_json(), "passed": True}, "gate failed"),  # counted anew
        ({**gate(GOOD).as_json(), "windows": [3]}, "no valid verdict"),
        ({**gate(GOOD).as_json(), "format": 9}, "format 9, expected 1"),
    ):
        said = refusal(verdict, "tiny")
        assert reason in said and remedy in said and "\n" not in said


def engines(verdict: dict[str, Any] | None) -> list[Engine]:
    """The generator in fp8 and the VAE in fp16 beside it."""
    about = About(source="tiny", profile="720p", canvas=WIDE, seconds={"all": 90.0}, gate=verdict)
    precisions = {"generator": "fp8", "encode_step": "fp16"}
    return [
        Engine(
            folder=Path(stage),
            spec=make_spec(stage=stage, precision=precision),
            about=replace(about, gate=verdict if precision == "fp8" else None),
            files={},
        )
        for stage, precision in precisions.items()
    ]


def wish(precision: str | None) -> Wish:
    return Wish(
        model="tiny",
        canvas=WIDE,
        backend="tensorrt-rtx",
        target=89,
        precision=precision,
        stages=frozenset({"generator", "encode_step"}),
    )


@pytest.mark.parametrize("precision", ["fp8", None])
def test_engines_that_passed_are_chosen(precision: str | None) -> None:
    choice = choose(wish(precision), engines(gate(GOOD).as_json()))
    assert choice.how == "exact"
    assert [engine.spec.precision for engine in choice.engines] == ["fp8", "fp16"]


@pytest.mark.parametrize("verdict", [None, gate(BAD_FRAMES).as_json()])
def test_engines_that_did_not_pass_are_not_offered(verdict: dict[str, Any] | None) -> None:
    built = engines(verdict)
    assert [bool(engine.refusal) for engine in built] == [True, False]
    choice = choose(wish("fp8"), built)
    assert choice.how == "none" and choice.engines == ()
    assert choice.reason == built[0].refusal and "vr-trt calibrate" in choice.reason
    wide = replace(built[0], spec=make_spec(stage="generator", precision="fp16"))
    assert choose(wish(None), [*built, wide]).engines == (built[1], wide)
    assert choose(wish("fp16"), [*built, wide]).how == "exact"


def test_other_precisions_need_no_gate() -> None:
    half = replace(engines(None)[0], spec=make_spec(precision="bf16"))
    assert half.refusal == ""


def test_nano_s_own_calibration_passed() -> None:
    """Fails when nano gets other weights: then it is calibrated and judged anew."""
    files = find_model_files("nano")
    found = find_calibration(files.generator_file, files.sha256()[files.generator_file.name])
    assert refusal(found.gate, "nano") == ""
    measured = json.loads(RESULTS.read_text())["gate"]
    assert measured == found.gate and Gate.from_json(measured).frames.fp8 > AIM
