"""The convolution to few channels: its runs, and what it becomes beside the general one."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import SHARED_LIMIT, compile_for
from vr_trt.kernels.conv_few import tap_columns_kernel, tap_sum_kernel
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_conv_few.py")
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}


def test_the_kernels_equal_the_convolution_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=13)


@pytest.mark.gpu
def test_the_kernels_equal_the_convolution_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=19)


@pytest.mark.parametrize(
    "chip", [c if c == 90 else pytest.param(c, marks=pytest.mark.slow) for c in CHIPS]
)
def test_what_they_become(chip: int) -> None:
    """conv_out of the published VAE in bf16."""
    signature = dict.fromkeys(("x", "weight", "columns"), "*bf16:16")
    signature |= {"pixels": "i32", "step": "i32"}
    constants = {"ROWS": 81, "C": 128, "BLOCK_ROWS": 128, **tuned("conv_few", chip)}
    product = compile_for(tap_columns_kernel, signature, constants, chip)
    assert product.count(PRODUCT[chip]) > 0 and not product.serialised
    signature = {"columns": "*bf16:16", "bias": "*fp32:16", "y": "*bf16:16"}
    names = ("height", "width", "step", "y_frame", "y_row", "y_column")
    signature |= dict.fromkeys(names, "i32")
    sums = compile_for(
        tap_sum_kernel, signature, {"N": 3, "STARTS": False, "BLOCK": 256, "num_warps": 4}, chip
    )
    for compiled in (product, sums):
        assert compiled.spills == 0 and compiled.shared_bytes <= SHARED_LIMIT[chip]
