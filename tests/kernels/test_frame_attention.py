"""Frame attention: run by the interpreter or a GPU, what it refuses, what it becomes."""

from pathlib import Path

import pytest
import torch
from tests.chips import PRODUCT, check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.frame_attention import (
    frame_attention,
    frame_attention_kernel,
    frame_attention_reference,
)
from vr_trt.kernels.tuning import tuned

RUNS = Path(__file__).with_name("run_frame_attention.py")


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=17)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=17)


def test_reference_is_softmax_of_products() -> None:
    qkv = torch.randn(2, 5, 3, 48, generator=torch.Generator().manual_seed(0)).double()
    q, k, v = qkv.flatten(1, 2).chunk(3, -1)
    wanted = ((q @ k.transpose(1, 2) / 4).softmax(-1) @ v).view(2, 5, 3, 16)
    torch.testing.assert_close(frame_attention_reference(qkv), wanted)


@pytest.mark.parametrize("chip", chips())
def test_what_it_becomes_on_every_chip(chip: int) -> None:
    signature = {
        "qkv": "*bf16:16", "out": "*bf16:16", "positions": "i32", "scale": "fp32",
        "width": "i32", "out_frame": "i64:16", "out_row": "i32:16", "out_column": "i32:16",
    }  # fmt: skip
    kernel = compile_for(
        frame_attention_kernel,
        signature,
        {"D": 512, **tuned("frame_attention", chip, bits=16)},
        chip,
    )
    check_fits(kernel, chip)
    assert kernel.count(PRODUCT[chip]) > 0 and not kernel.serialised
    assert chip != 90 or kernel.count("HMMA") == 0
    assert kernel.count("LDGSTS.E.BYPASS.128") > 0


def test_what_does_not_fit_is_refused() -> None:
    x, y = torch.zeros(1, 2, 3, 48), torch.zeros(1, 2, 3, 16)
    for qkv, out in ((x, torch.zeros(1, 2, 3, 32)), (x[0], y[0]), (x, y[:, :1])):
        with pytest.raises(ValueError, match="does not give"):
            frame_attention(qkv, out)
    with pytest.raises(TypeError, match="float64"):
        frame_attention(x.double(), y.double())
    with pytest.raises(TypeError, match="float16"):
        frame_attention(x, y.half())
    with pytest.raises(ValueError, match="dense"):
        frame_attention(x.mT.contiguous().mT, y)
    with pytest.raises(ValueError, match="dense"):
        frame_attention(x, y.mT.contiguous().mT)
