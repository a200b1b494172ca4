"""Group norm: run by the interpreter or a GPU, its references, what it refuses and becomes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chips import check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.group_norm import (
    Norm,
    activate,
    activate_kernel,
    activate_reference,
    empty_moments,
    moments_kernel,
    scale_shift,
    scale_shift_kernel,
    scale_shift_reference,
)

RUNS = Path(__file__).with_name("run_group_norm.py")


def test_the_kernels_equal_their_references_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=36)


@pytest.mark.gpu
def test_the_kernels_equal_their_references_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=36)


def test_references_are_torchs_own() -> None:
    x = torch.randn(3, 4, 5, 12, generator=torch.Generator().manual_seed(0))
    norm = Norm(weight=torch.rand(12), bias=torch.rand(12), groups=3, eps=0.1)
    table = scale_shift_reference(x, norm)
    pictures = x.permute(0, 3, 1, 2)
    wanted = torch.group_norm(pictures, 3, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(activate_reference(x, table, silu=False), wanted.permute(0, 2, 3, 1))
    torch.testing.assert_close(
        activate_reference(x, table), torch.nn.functional.silu(wanted).permute(0, 2, 3, 1)
    )


PICTURE = {"C": 128, "PIXELS": 64, "CHANNELS": 128, "num_warps": 4}
SIGNATURES: dict[Any, tuple[dict[str, str], dict[str, Any]]] = {
    activate_kernel: (
        {
            "x": "*bf16:16", "scale_shift": "*fp32:16", "y": "*bf16:16", "per_step": "fp32",
            "pixels": "i32", "width": "i32", "x_frame": "i64:16", "x_row": "i32:16",
            "x_column": "i32:16", "y_frame": "i64:16", "y_row": "i32:16", "y_column": "i32:16",
        },
        {**PICTURE, "SILU": True, "LARGEST": 0},
    ),
    moments_kernel: (
        {
            "x": "*bf16:16", "values": "*fp32:16", "counts": "*fp32:16", "pixels": "i32",
            "width": "i32", "x_frame": "i64:16", "x_row": "i32:16", "x_column": "i32:16",
        },
        PICTURE,
    ),
    scale_shift_kernel: (
        {
            **dict.fromkeys(("values", "counts", "weight", "bias", "out"), "*fp32:16"),
            "tiles": "i32",
        },
        {"C": 128, "PER_GROUP": 4, "EPS": 1e-6, "TILES": 256, "CHANNELS": 4, "num_warps": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("chip", chips())
@pytest.mark.parametrize("kernel", SIGNATURES, ids=lambda kernel: kernel.__name__)
def test_what_they_become_on_every_chip(kernel: Any, chip: int) -> None:
    signature, constants = SIGNATURES[kernel]
    compiled = compile_for(kernel, signature, constants, chip)
    check_fits(compiled, chip, registers=128)  # four blocks of 128 threads on a multiprocessor
    assert compiled.count("LDG.E.128") > 0  # 16 bytes at a time


def test_what_does_not_fit_is_refused() -> None:
    x, table = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 8)
    with pytest.raises(ValueError, match="activate"):
        activate(x, table, torch.zeros(1, 2, 3, 9))
    with pytest.raises(ValueError, match="dense"):
        activate(x.transpose(2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 2, 8, 3))
    with pytest.raises(ValueError, match="only fp8 has a step"):
        activate(x, table, torch.zeros_like(x), step=2.0)
    norm = Norm(weight=torch.ones(8), bias=torch.ones(8), groups=3)
    with pytest.raises(ValueError, match="3 groups of 8"):
        scale_shift(empty_moments(1, 1, 8, x), norm)
