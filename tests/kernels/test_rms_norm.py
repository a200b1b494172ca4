"""RMSNorm: its reference, what it refuses, and the kernel itself where no GPU is needed."""

from pathlib import Path

import pytest
import torch
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.rms_norm import EPS, RmsNormTile, rms_norm, rms_norm_reference, rms_norm_tile

RUNS = Path(__file__).with_name("run_rms_norm.py")


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=32)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=32)


def test_reference_is_torchs_own() -> None:
    x = torch.randn(5, 37, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rms_norm_reference(x), torch.rms_norm(x, (37,), eps=EPS))


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(4, 8).t(), "strides"),
        (torch.zeros(4, 16)[:, :8], "strides"),
        (torch.zeros(4, 16)[::2], "strides"),
        (torch.zeros(8), r"\[N, C\]"),
        (torch.zeros(2, 3, 4), r"\[N, C\]"),
        (torch.zeros(4, 8, dtype=torch.int32), "int32"),
        (torch.zeros(4, 8, dtype=torch.float64), "float64"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused(x: torch.Tensor, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        rms_norm(x)


@pytest.mark.parametrize(
    "out", [torch.zeros(4, 9), torch.zeros(4, 8).half(), torch.zeros(8, 4).t()]
)
def test_an_output_of_another_kind_is_refused(out: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        rms_norm(torch.zeros(4, 8), out=out)


def test_tiles() -> None:
    assert rms_norm_tile(2560) == RmsNormTile(rows=1, columns=4096)
    assert rms_norm_tile(128) == RmsNormTile(rows=16, columns=128)
    assert rms_norm_tile(1).columns == 1
    assert all(1 <= rms_norm_tile(c).warps <= 8 for c in (1, 7, 128, 2560, 100_000))
