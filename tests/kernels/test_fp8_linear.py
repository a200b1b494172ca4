"""The linear in E4M3: its runs, what it refuses, and what it compiles to."""

from pathlib import Path

import pytest
import torch
from tests.chips import PRODUCT_FP8, check_fits
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import Compiled, compile_for
from vr_trt.kernels.fp8_linear import fp8_linear, fp8_linear_kernel
from vr_trt.kernels.tuning import tuned

RUNS = Path(__file__).with_name("run_fp8_linear.py")
FP8 = torch.float8_e4m3fn


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=17)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=17)


def compiled(chip: int, outputs: int, inputs: int, **sizes: int) -> Compiled:
    """The kernel in bf16 for a linear of `inputs` to `outputs` channels."""
    options = {**tuned("fp8_linear", chip), **sizes}
    descriptors = chip >= 90
    kinds = {
        name: f"tensordesc<fp8e4nv[{options[block]},{options['BLOCK_K']}]>"
        if descriptors
        else "*fp8e4nv:16"
        for name, block in (("x", "BLOCK_M"), ("weight", "BLOCK_N"))
    }
    signature = kinds | dict.fromkeys(("x_scale", "weight_scale"), "*fp32:16")
    signature |= {"bias": "*bf16:16", "y": "*bf16:16", "M": "i32"}
    constants = {"N": outputs, "K": inputs, "DESCRIPTORS": descriptors, **options}
    return compile_for(fp8_linear_kernel, signature, constants, chip)


@pytest.mark.parametrize("chip", PRODUCT_FP8)
def test_every_chip_that_has_e4m3_multiplies_in_it(chip: int) -> None:
    kernel = compiled(chip, 7680, 2560)
    check_fits(kernel, chip)
    assert kernel.count(PRODUCT_FP8[chip]) > 0 and kernel.count("HMMA", "HGMMA", "UTCHMMA") == 0
    assert not kernel.serialised
    assert kernel.count("STG.E.128") == kernel.count("STG") > 0
    if chip >= 90:  # the copy engine fetches the tiles
        assert kernel.count("UTMALDG") > 0
    else:
        assert kernel.count("LDGSTS.E.BYPASS.128") == kernel.count("LDGSTS") > 0


def test_hopper_adds_partial_sums_in_full() -> None:
    """Once every 128 elements of K: 64 accumulators a thread, and products are not serialised."""
    exact, fast = compiled(90, 7680, 2560), compiled(90, 7680, 2560, SUM_K=65536)
    assert exact.count("FADD") - fast.count("FADD") == 64
    assert exact.count("QGMMA") == fast.count("QGMMA") == 4
    assert exact.count("WARPGROUP.ARRIVE") == 1


X, W, ONE = torch.zeros(2, 32).to(FP8), torch.zeros(16, 32).to(FP8), torch.ones(2)
GOOD = (X, W, ONE, torch.ones(16), torch.zeros(16), torch.zeros(2, 16))


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (0, torch.zeros(2, 32), "x is torch.float32"),
        (0, X[:, :24], "multiple of 16"),
        (0, X.t().contiguous().t(), "strides"),
        (1, W.half(), "weight is torch.float16"),
        (2, ONE[:1], r"x_scale is \(1,\), not \(2,\)"),
        (3, torch.ones(16).half(), "weight_scale is torch.float16"),
        (4, torch.zeros(16).half(), "bias is torch.float16"),
        (5, torch.zeros(2, 17), r"out is \(2, 17\)"),
        (5, torch.zeros(2, 16).double(), "fp16, bf16 or fp32"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused(
    place: int, value: torch.Tensor, error: str
) -> None:
    names = ("x", "weight", "x_scale", "weight_scale", "bias", "out")
    given = dict(zip(names, GOOD, strict=True)) | {names[place]: value}
    with pytest.raises((TypeError, ValueError), match=error):
        fp8_linear(
            given["x"], given["weight"], given["x_scale"], given["weight_scale"], given["bias"],
            given["out"],
        )  # fmt: skip
