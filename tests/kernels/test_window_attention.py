"""Window attention: what it refuses, what it compiles to, and its runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.chips import PRODUCT, PRODUCT_FP8, check_fits, chips
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.kernels.aot import Compiled, compile_for
from vr_trt.kernels.tuning import CHIPS, tuned
from vr_trt.kernels.window_attention import (
    compile_attention,
    rotated_keys_kernel,
    window_attention,
    window_attention_reference,
    window_mean_kernel,
)
from vr_trt.kernels.window_call import AttentionBuffers, QkNorm, window_plan
from vr_trt.kernels.window_tables import WindowSpec

Change = Callable[[torch.Tensor, torch.Tensor, QkNorm], tuple[torch.Tensor, torch.Tensor, QkNorm]]
RUNS = Path(__file__).with_name("run_window_attention.py")
SPEC = WindowSpec(grid=(2, 4, 6), shifted=False, text_tokens=3, head_width=32, rope="language")
CPU = torch.device("cpu")


def test_the_kernels_equal_their_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=49)


@pytest.mark.gpu
def test_the_kernels_equal_their_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=32)


def inputs(spec: WindowSpec = SPEC, heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, QkNorm]:
    D = spec.head_width
    one = torch.ones(D)
    norm = QkNorm(video_q=one, video_k=one, text_k=one, text_q=one)
    return torch.ones(spec.video_tokens, 3, heads, D), torch.ones(3, 3, heads, D), norm


def test_the_reference_alone_is_an_ordinary_attention() -> None:
    """One window, no rotation, equal keys: every token gets the mean of the values."""
    spec = replace(SPEC, grid=(1, 2, 3), rope="pixel")
    video, text, norm = inputs(spec)
    video[:, 2] = torch.arange(6.0)[:, None, None]
    video[:, :2] = text[:, :2] = 0
    attended, of_text = window_attention_reference(video, text, norm, spec)
    assert of_text is not None
    for out in (attended, of_text):
        torch.testing.assert_close(out, torch.full_like(out, (15 + 3) / 9))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda v, t, n: (v.double(), t, n), "fp16 or bf16, not torch.float64"),
        (lambda v, t, n: (v[:-1], t, n), r"video is \(47, 3, 2, 32\), not \(48, 3, 2, 32\)"),
        (lambda v, t, n: (v[:, :2], t, n), "video is"),
        (lambda v, t, n: (v[0], t, n), "video is"),
        (lambda v, t, n: (v, t[:, 1:], n), r"text is \(3, 2, 2, 32\), not \(3, 3, 2, 32\)"),
        (lambda v, t, n: (v, t.half(), n), "text is torch.float16 on cpu, not torch.float32"),
        (lambda v, t, n: (v, t.to("meta"), n), "text is torch.float32 on meta"),
        (lambda v, t, n: (v.transpose(1, 2).contiguous().transpose(1, 2), t, n), "strides"),
        (lambda v, t, n: (v, t, replace(n, text_q=None)), "text has queries but no weights"),
        (lambda v, t, n: (v, t, replace(n, video_k=n.video_k[:-1])), r"video_k is \(31,\)"),
    ],
)
def test_what_the_kernels_cannot_read_is_refused(change: Change, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        window_attention(*change(*inputs()), window_plan(SPEC, CPU))


def test_outputs_of_another_kind_are_refused() -> None:
    video, text, norm = inputs()
    plan = window_plan(SPEC, CPU)
    buffers = replace(AttentionBuffers.like(video, plan), keys=video.new_empty(48, 2, 32))
    with pytest.raises(ValueError, match=r"keys is \(48, 2, 32\), not \(51, 2, 32\)"):
        window_attention(video, text, norm, plan, buffers)


@pytest.mark.parametrize("width", [16, 96])
def test_head_widths_that_make_no_tile_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"32, 64, 128…, not {width}"):
        window_plan(replace(SPEC, head_width=width), CPU)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_attention_of_the_published_width_on_every_chip(kind: str, chip: int) -> None:
    compiled = compile_attention(kind, 20, 128, chip)
    check_attention(compiled, chip)
    if chip == 90:  # a pass waits for its scores once; the other product is under way meanwhile
        assert compiled.count("HGMMA") == 16 and compiled.count("WARPGROUP.DEPBAR") <= 2


def test_hopper_overlaps_the_products_of_narrow_heads() -> None:
    """With one block of keys a pass the assembler serialises them; with two it does not."""
    check_attention(compile_attention("bf16", 20, 64, 90), 90)
    row = tuned("window_attention", 90, head_width=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vr_trt.kernels.window_attention.tuned", lambda *_, **__: {**row, "UNROLL": 1}
        )
        assert compile_attention("bf16", 20, 64, 90).serialised


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("head_width", "text_parts"), [(32, 3), (64, 3), (64, 2), (128, 2)])
def test_attention_of_other_forms(head_width: int, text_parts: int, chip: int) -> None:
    check_attention(compile_attention("fp16", 20, head_width, chip, text_parts), chip)


@pytest.mark.parametrize("chip", chips(PRODUCT_FP8))
def test_attention_that_ends_in_codes(chip: int) -> None:
    compiled = compile_attention("bf16", 20, 128, chip, codes=True)
    check_fits(compiled, chip)
    assert compiled.count(PRODUCT[chip]) > 0 and compiled.count("F2FP") > 0
    assert compiled.count("STG.E.U8", "STG.E.U16") == 0


def check_attention(compiled: Compiled, chip: int) -> None:
    check_fits(compiled, chip)
    assert compiled.count(PRODUCT[chip]) > 0 and not compiled.serialised
    # Rows are gathered 16 bytes a thread, past the registers.
    assert compiled.count("LDGSTS.E.BYPASS.128") > 0 and compiled.count("LDGSTS.E.64") == 0
    assert compiled.count("STG.E.128") > 0 and compiled.count("STG.E.U16", "STG.E.64") == 0


@pytest.mark.parametrize("chip", chips())
def test_keys_and_means_are_moved_in_wide_pieces(chip: int) -> None:
    tensors = ("video", "text", "video_weight", "text_weight", "keys")
    signature = dict.fromkeys(tensors, "*fp16:16") | {"cos": "*fp32:16", "sin": "*fp32:16"}
    signature |= {"N": "i32", "L": "i32"}
    constants = {"EPS": 1e-5, "H": 20, "D": 128, "TEXT_PARTS": 3}
    keys = compile_for(
        rotated_keys_kernel, signature, constants | tuned("rotated_keys", chip), chip
    )
    signature = {"windows": "*fp16:16", "mean": "*fp16:16", "count": "i32", "size": "i32:16"}
    constants = {"QUANTISES": False, **tuned("window_mean", chip)}
    mean = compile_for(window_mean_kernel, signature | {"scale": "*fp32:16"}, constants, chip)
    for compiled in (keys, mean):
        check_fits(compiled, chip, registers=128)
        assert compiled.count("LDG.E.U16", "STG.E.U16") == 0
    assert keys.count("LDG.E.128") > 0 and keys.count("STG.E.128") > 0
