"""The glue between the generator's linears: references, refusals, what compiles, and its runs."""

from pathlib import Path

import pytest
import torch
from tests.chips import chips
from tests.kernel_runs import run
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.activation import activate, activation_kernel, activation_reference
from vr_trt.kernels.aot import Compiled, compile_for
from vr_trt.kernels.fp8 import FIRST_CHIP
from vr_trt.kernels.residual_norm import (
    residual_norm,
    residual_norm_kernel,
    residual_norm_reference,
)
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_generator_glue.py")
HALF, FP8 = torch.float16, torch.float8_e4m3fn


def test_the_kernels_equal_their_references_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=96)


@pytest.mark.gpu
def test_the_kernels_equal_their_references_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=85)


def test_references_are_torchs_own() -> None:
    x, y, gate = torch.randn(5, 16), torch.randn(5, 16), torch.randn(16)
    sum_, normed = residual_norm_reference(x, y, gate)
    torch.testing.assert_close(sum_, x + y * gate)
    torch.testing.assert_close(normed, F.rms_norm(sum_, (16,), eps=1e-5))
    torch.testing.assert_close(activation_reference(x, "swiglu"), F.silu(x[:, :8]) * x[:, 8:])
    torch.testing.assert_close(activation_reference(x, "gelu"), F.gelu(x, approximate="tanh"))
    codes = residual_norm_reference(x, scale=torch.tensor([0.25]))[1]
    assert codes.dtype == FP8
    torch.testing.assert_close(
        codes.float() / 4, F.rms_norm(x, (16,), eps=1e-5), rtol=0.07, atol=1e-3
    )


X = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((X.double(),), "float64"),
        ((X[0],), r"\[N, C\]"),
        ((torch.zeros(1, 20000),), "16384 columns"),
        ((X, X.half()), "y is torch.float16 on cpu, not torch.float32 on cpu"),
        ((X, X[:2]), r"\(2, 8\)"),
        ((X, X.t().contiguous().t()), "strides"),
        ((X, None, X[0]), "gate without anything"),
        ((X, X, X[0, :4]), r"\(4,\)"),
        ((X, X, None, torch.ones(2)), "one fp32"),
        ((X, X, None, torch.ones(1).half()), "one fp32"),
        ((X, X, None, torch.ones(1, device="meta")), "on meta"),
        ((X, None, None, None, 1e-5, X.half()), "torch.float16"),
        ((X, None, None, torch.ones(1), 1e-5, torch.zeros(4, 8)), "torch.float32"),
    ],
)
def test_what_the_norm_cannot_read_is_refused(given: tuple[torch.Tensor, ...], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        residual_norm(*given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((X.long(), "gelu"), "int64"),
        ((X[:, :7].contiguous(), "swiglu"), r"\[N, 2 M\] for swiglu, not \(4, 7\)"),
        ((X[0], "gelu"), r"\[N, 1 M\]"),
        ((X[:, :4], "gelu"), "strides"),
        ((X, "swiglu", None, torch.zeros(4, 8)), r"out is \(4, 8\)"),
        ((X, "gelu", torch.ones(1), torch.zeros(4, 8)), "torch.float32"),
        ((X, "gelu", torch.ones(3)), "one fp32"),
    ],
)
def test_what_the_activation_cannot_read_is_refused(
    given: tuple[torch.Tensor, ...], error: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        activate(*given)  # type: ignore[arg-type]


def glue(chip: int, kind: str, fp8: bool) -> list[Compiled]:
    """The norm and the SwiGLU at the widths of the 3B."""
    out, wide = "*fp8e4nv:16" if fp8 else f"*{kind}:16", f"*{kind}:16"
    norm = compile_for(
        residual_norm_kernel,
        dict.fromkeys(("x", "y", "gate", "x_out"), wide)
        | {"scale": "*fp32:16", "normed": out, "rows": "i32", "columns": "i32:16"},
        {"EPS": 1e-5, "ADDS": True, "GATED": True, "QUANTISES": fp8, "BY_ROW": fp8, "BLOCK": 4096}
        | tuned("residual_norm", chip),
        chip,
    )
    swiglu = compile_for(
        activation_kernel,
        {"hidden": wide, "scale": "*fp32:16", "out": out, "width": "i32:16"},
        {"SWIGLU": True, "QUANTISES": fp8, "BY_ROW": int(fp8)} | tuned("activation", chip),
        chip,
    )
    return [norm, swiglu]


@pytest.mark.parametrize("chip", chips())
def test_sixteen_bits_move_sixteen_bytes_at_a_time(chip: int) -> None:
    for compiled in glue(chip, "bf16", fp8=False):
        assert compiled.spills == 0 and compiled.registers <= 64 and compiled.shared_bytes <= 1024
        assert compiled.count("LDG.E.128") == compiled.count("LDG") > 0
        assert compiled.count("STG.E.128") == compiled.count("STG") > 0


@pytest.mark.parametrize("chip", chips([c for c in CHIPS if c >= FIRST_CHIP]))
def test_fp8_is_written_eight_codes_at_a_time_or_more(chip: int) -> None:
    for compiled in glue(chip, "bf16", fp8=True):
        assert compiled.spills == 0 and compiled.registers <= 64
        assert compiled.shared_bytes <= 8192  # codes gather there before they are written
        assert compiled.count("STG.E.128", "STG.E.64") == compiled.count("STG") > 0
        assert compiled.count("F2FP") > 0
