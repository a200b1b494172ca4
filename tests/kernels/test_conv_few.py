"""The convolution to few channels: its runs, and what it becomes beside the general one."""

from pathlib import Path

import pytest
import torch
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import SHARED_LIMIT, compile_for
from vr_trt.kernels.conv_few import (
    columns_constants,
    pack_few,
    sum_constants,
    tap_columns_kernel,
    tap_sum_kernel,
)
from vr_trt.kernels.conv_layer import ConvForm, PackedConv
from vr_trt.kernels.tuning import CHIPS

RUNS = Path(__file__).with_name("run_conv_few.py")
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}


def test_the_kernels_equal_the_convolution_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=29)


@pytest.mark.gpu
def test_the_kernels_equal_the_convolution_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=29)


@pytest.mark.parametrize(
    "chip", [c if c == 90 else pytest.param(c, marks=pytest.mark.slow) for c in CHIPS]
)
def test_what_they_become(chip: int) -> None:
    """conv_out of the published VAE in bf16, a step: every load of the product asynchronous."""
    few = pack_few(
        PackedConv(
            form=ConvForm(),
            channels=128,
            outputs=3,
            weight=torch.empty(3, 27 * 128, dtype=torch.bfloat16),
            bias=torch.empty(3),
        )
    )
    signature = dict.fromkeys(("x", "past", "weight"), "*bf16:16") | {"columns": "*fp32:16"}
    signature |= {"frames": "i32", "plane": "i32", "step": "i32:16"}
    product = compile_for(tap_columns_kernel, signature, columns_constants(few, True, chip), chip)
    assert product.count(PRODUCT[chip]) > 0 and not product.serialised
    assert product.count("LDGSTS.E.BYPASS.128") > 0
    signature = {"columns": "*fp32:16", "bias": "*fp32:16", "y": "*bf16:16"}
    names = ("height", "width", "y_frame", "y_row", "y_column")
    signature |= dict.fromkeys(names, "i32") | {"step": "i32:16"}
    sums = compile_for(tap_sum_kernel, signature, sum_constants(few), chip)
    for compiled in (product, sums):
        assert compiled.spills == 0 and compiled.shared_bytes <= SHARED_LIMIT[chip]
