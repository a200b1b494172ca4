"""What the table says of stages that are not built, against stages that are laid out."""

import subprocess
import sys
from dataclasses import asdict

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.bench import triton_memory
from vr_trt.engines.cache import Canvas
from vr_trt.engines.cards import wide_canvas
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.profiles import find_profile
from vr_trt.engines.triton_law import Way, triton_stage, triton_together
from vr_trt.errors import ModelError

MARGIN = 0.01  # of what a stage holds in all
# Another size, a narrow one, an upright one, and longer windows.
CANVASES = [
    wide_canvas(find_profile("1080p")),
    wide_canvas(find_profile("360p")),
    Canvas(width=1440, height=1088, latents=6, step=1),
    Canvas(width=720, height=1280, latents=8, step=1),
]
STAGES = ("encode_start", "encode_step", "decode_start", "decode_step", "decode_image", "generator")


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
@pytest.mark.parametrize("fp8", [False, True])
def test_the_table_is_what_stages_hold(canvas: Canvas, fp8: bool) -> None:
    for stage in STAGES:
        check("seedvr2-3b", stage, canvas, fp8, triton_memory.CHIP)


@pytest.mark.parametrize("chip", [80, 120])
def test_tiles_of_other_chips_make_no_great_difference(chip: int) -> None:
    for stage in ("encode_start", "decode_start"):
        check("seedvr2-3b", stage, CANVASES[0], False, chip)


@pytest.mark.parametrize("model", ["seedvr2-7b", "nano"])
def test_other_models_have_rows_of_their_own(model: str) -> None:
    for stage in ("decode_start", "generator", "generator_image"):
        check(model, stage, CANVASES[0], False, triton_memory.CHIP)


def check(model: str, stage: str, canvas: Canvas, fp8: bool, chip: int) -> None:
    held = triton_memory.stage_bytes(NETWORKS[model], stage, canvas, fp8=fp8, chip=chip)
    said = triton_stage(model, stage, canvas, Way(precision="fp8" if fp8 else "bf16", fp8_vae=fp8))
    whole = sum(asdict(held).values()) - held.weights  # which are counted in `own`
    for count, size in asdict(held).items():
        assert abs(asdict(said)[count] - size) <= MARGIN * whole, (stage, count)


def test_a_run_holds_every_stage_once() -> None:
    """By hand: start and step share states, pictures the generator's weights, all the arena."""
    canvas, way = CANVASES[0], Way()
    of = {
        stage: triton_stage("seedvr2-7b", stage, canvas, way)
        for stage in (*STAGES, "encode_image", "generator_image")
    }
    found = triton_together("seedvr2-7b", canvas, way)
    states = of["encode_step"].states + of["decode_step"].states
    own = sum(x.own for x in of.values()) - of["generator_image"].weights
    assert found.bytes == pytest.approx(own + states + max(x.arena for x in of.values()), rel=1e-9)
    assert found.parts["generator"] == of["generator"].weights > 16e9
    assert found.parts["decoder"] == of["decode_step"].states


def test_less_is_held_in_e4m3() -> None:
    ways = [Way(), Way(fp8_vae=True), Way(precision="fp8", fp8_vae=True)]
    sizes = [triton_together("seedvr2-3b", CANVASES[0], way).bytes for way in ways]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 0.65 * sizes[0]


def test_models_without_rows_are_named() -> None:
    with pytest.raises(ModelError, match="mine .* is not known: choose one of .*seedvr2-3b"):
        triton_together("mine", CANVASES[0], Way())


def test_the_law_wants_no_torch() -> None:
    code = "import sys, vr_trt.engines.triton_law; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
