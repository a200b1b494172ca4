"""The colours' moments: their runs, what is refused, what the compiler made of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chips import check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.colour_match import (
    VARIANCE_FLOOR,
    ColourMatch,
    colour_match_kernel,
    colour_moments_kernel,
)
from vr_trt.kernels.tuning import tuned

RUNS = Path(__file__).with_name("run_colour_match.py")


def test_the_kernels_equal_their_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=12)


@pytest.mark.gpu
def test_the_kernels_equal_their_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=12)


@pytest.mark.parametrize("lab", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chip", chips())
def test_every_chip_compiles_them_without_spills(chip: int, lab: bool) -> None:
    strides = [f"{p}_{axis}" for p in "rt" for axis in ("channel", "frame", "row")]
    signature = dict.fromkeys(("restored", "reference"), "*fp16:16")
    signature |= dict.fromkeys(("axes", "out"), "*fp32:16") | dict.fromkeys(strides, "i32:16")
    signature |= dict.fromkeys(("height", "width", "tiles"), "i32")
    options = tuned("colour_match", chip)
    moments = compile_for(colour_moments_kernel, signature, {"LAB": lab, **options}, chip)
    signature = {"moments": "*fp32:16", "out": "*fp32:16", "tiles": "i32"}
    fixed = {"FLOOR": VARIANCE_FLOOR, "BLOCK": 256}
    for compiled in (moments, compile_for(colour_match_kernel, signature, fixed, chip)):
        check_fits(compiled, chip, registers=128)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("restored", lambda t: t[:2], "restored is"),
        ("reference", lambda t: t[..., :10], "reference is"),
        ("reference", lambda t: t.mT.contiguous().mT, "dense rows"),
        ("restored", lambda t: t.int(), "int32"),
        ("out", lambda t: t.half(), "out is torch.float16"),
        ("room", lambda t: t.int(), "room is torch.int32"),
        ("room", lambda t: t[:, :, 1:], "room is"),
    ],
)
def test_what_the_kernels_cannot_read_is_refused(name: str, change: Any, error: str) -> None:
    match = ColourMatch("lab", 9, 12, "cpu")
    given = {
        "restored": torch.zeros(3, 2, 16, 16),
        "reference": torch.zeros(3, 2, 16, 16),
        "out": torch.zeros(2, 3, 2),
        "room": torch.zeros(2, 2, match.tiles, 3, 3),
    }
    with pytest.raises((TypeError, ValueError), match=error):
        match(**given | {name: change(given[name])})
