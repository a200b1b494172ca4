"""The wavelet: its kernel where no GPU is needed, what it refuses, what the compiler made of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chips import check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.bands import row_blocks, smoothing_bands
from vr_trt.kernels.tuning import tuned
from vr_trt.kernels.wavelet import Wavelet, smooth_kernel

RUNS = Path(__file__).with_name("run_wavelet.py")
STRIDES = [f"{p}_{axis}" for p in ("x", "minus", "base") for axis in ("channel", "frame", "row")]


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=12)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=12)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("chip", chips())
def test_every_chip_compiles_it_without_spills(chip: int, second: bool) -> None:
    options = tuned("wavelet", chip)
    pictures = dict.fromkeys(("x", "minus"), "*fp32:16" if second else "*fp16:16")
    signature = {
        **pictures,
        "base": "*fp16:16",
        **dict.fromkeys((*STRIDES, "rows", "columns"), "i32:16"),
        "first": "*i32:16",
        **dict.fromkeys(("weights", "out"), "*fp32:16"),
    }
    span = row_blocks(smoothing_bands(720), options["ROWS"]).span
    fixed = {**options, "SPAN": span, "DIFFERENCE": not second, "CORRECTION": second}
    compiled = compile_for(smooth_kernel, signature, fixed, chip)
    check_fits(compiled, chip, registers=128)
    assert compiled.count("STG.E.128") > 0  # the transposed result is written densely


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("restored", lambda t: t[:2], "restored is"),
        ("reference", lambda t: t[..., :10], "reference is"),
        ("reference", lambda t: t.mT.contiguous().mT, "dense rows"),
        ("restored", lambda t: t.int(), "int32"),
        ("out", lambda t: t.half(), "out is torch.float16"),
        ("room", lambda t: t.int(), "room is torch.int32"),
        ("out", lambda t: t[..., :10], "out is"),
        ("room", lambda t: t.mT, "room is"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused(name: str, change: Any, error: str) -> None:
    given = {
        "restored": torch.zeros(3, 2, 16, 16),
        "reference": torch.zeros(3, 2, 16, 16),
        "out": torch.zeros(3, 2, 9, 12),
        "room": torch.zeros(3, 2, 12, 9),
    }
    with pytest.raises((TypeError, ValueError), match=error):
        Wavelet(9, 12, "cpu")(**given | {name: change(given[name])})
