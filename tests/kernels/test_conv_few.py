"""The convolution to few channels: its runs, and what it becomes beside the general one."""

from pathlib import Path

import pytest
import torch
from tests.chips import PRODUCT, check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.conv_few import (
    columns_constants,
    pack_few,
    sum_constants,
    tap_columns_kernel,
    tap_sum_kernel,
)
from vr_trt.kernels.conv_layer import ConvForm, PackedConv

RUNS = Path(__file__).with_name("run_conv_few.py")


def test_the_kernels_equal_the_convolution_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=29)


@pytest.mark.gpu
def test_the_kernels_equal_the_convolution_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=29)


@pytest.mark.parametrize("chip", chips(quick=(90,)))
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
        check_fits(compiled, chip)
