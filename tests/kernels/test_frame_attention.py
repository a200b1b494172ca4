"""Frame attention: run by the interpreter or a GPU, what it refuses, what it becomes."""

from pathlib import Path

import pytest
import torch
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import SHARED_LIMIT, compile_for
from vr_trt.kernels.frame_attention import (
    frame_attention,
    frame_attention_kernel,
    frame_attention_reference,
)
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_frame_attention.py")
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=12)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=17)


def test_reference_is_softmax_of_products() -> None:
    qkv = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0)).double()
    q, k, v = qkv.chunk(3, -1)
    wanted = (q @ k.transpose(1, 2) / 4).softmax(-1) @ v
    torch.testing.assert_close(frame_attention_reference(qkv), wanted)


@pytest.mark.parametrize("chip", CHIPS)
def test_what_it_becomes_on_every_chip(chip: int) -> None:
    signature = {"qkv": "*bf16:16", "out": "*bf16:16", "positions": "i32", "scale": "fp32"}
    kernel = compile_for(
        frame_attention_kernel,
        signature,
        {"D": 512, **tuned("frame_attention", chip, bits=16)},
        chip,
    )
    assert kernel.count(PRODUCT[chip]) > 0
    assert chip != 90 or kernel.count("HMMA") == 0
    assert kernel.spills == 0
    assert kernel.shared_bytes <= SHARED_LIMIT[chip]
    assert kernel.count("LDGSTS.E.BYPASS.128") > 0


@pytest.mark.parametrize(
    ("qkv", "out", "error"),
    [
        ((1, 4, 48), (1, 4, 32), "does not give"),
        ((1, 4, 72), (1, 4, 24), "power of two"),
        ((1, 4, 24), (1, 4, 8), "power of two"),
        ((4, 48), (4, 16), "does not give"),
    ],
)
def test_what_does_not_fit_is_refused(
    qkv: tuple[int, ...], out: tuple[int, ...], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        frame_attention(torch.zeros(qkv), torch.zeros(out))


def test_other_dtypes_and_strides_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        frame_attention(torch.zeros(1, 4, 48).double(), torch.zeros(1, 4, 16).double())
    with pytest.raises(TypeError, match="float16"):
        frame_attention(torch.zeros(1, 4, 48), torch.zeros(1, 4, 16).half())
    with pytest.raises(ValueError, match="dense"):
        frame_attention(torch.zeros(1, 48, 4).mT, torch.zeros(1, 4, 16))
