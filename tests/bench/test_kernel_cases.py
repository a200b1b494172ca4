"""The cases of the kernels' benchmark: what they count, and that rivals compute the same."""

import subprocess
import sys
from collections.abc import Callable
from math import isnan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.bench.case import MODULES, OURS, Case, cases_of, relative_rms
from vr_trt.bench.cases import conv3d, pixels, vae, window_attention
from vr_trt.bench.cases.vae import Part
from vr_trt.export.config import VAE
from vr_trt.export.flops import coder_counts
from vr_trt.export.vae import Decoder, Encoder


@pytest.fixture(scope="module")
def full_size() -> dict[str, Case]:
    cases = [case for module in MODULES for case in cases_of(module, small=False)]
    by_name = {case.name: case for case in cases}
    assert len(by_name) == len(cases)
    return by_name


def test_every_case_says_what_it_needs(full_size: dict[str, Case]) -> None:
    for case in full_size.values():
        assert (
            case.work.flops > 0
            and case.work.bytes > 0
            and 0 < case.limit <= (0.3 if case.work.unit == "fp8" else 0.1)
        )
        assert OURS in case.ways or case.timed
        assert case.card()["ways"] == list(case.ways)


BARE = """
import sys
sys.modules |= dict.fromkeys(sys.argv[1:])  # cannot be imported
from vr_trt.bench import kernels, tune
from vr_trt.bench.case import MODULES, cases_of
print(sum(len(cases_of(module, small=False)) for module in MODULES))
"""


def test_torch_and_triton_are_all_that_is_needed(full_size: dict[str, Case]) -> None:
    absent = (
        *("av", "typer", "rich", "onnx", "onnxruntime", "onnxscript", "safetensors", "hypothesis"),
        *("huggingface_hub", "tensorrt", "tensorrt_rtx"),
    )
    command = [sys.executable, "-c", BARE, *absent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(full_size)}\n", done.stderr


@pytest.mark.parametrize(
    ("name", "flops"),
    [("generator 3B 720p, 21 frames", 115e12), ("generator 7B 720p, 21 frames", 184e12)],
)
def test_operations_are_those_of_the_specification(
    name: str, flops: float, full_size: dict[str, Case]
) -> None:
    assert full_size[name].work.flops == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("size", vae.SIZES)
@pytest.mark.parametrize(("part", "coder"), [("decode", Decoder), ("encode", Encoder)])
def test_the_vae_is_held_to_what_folding_leaves_to_compute(
    part: Part, coder: type[Decoder] | type[Encoder], size: str, full_size: dict[str, Case]
) -> None:
    """Of the decoder a fifth less than as published: the floor under a time is no higher."""
    counted = coder_counts(coder, "step", VAE, *vae.SIZES[size]).folded
    assert full_size[f"{part}_step {size}"].work.flops == pytest.approx(counted, rel=1e-3)


def test_attention_operations_are_those_of_the_specification(full_size: dict[str, Case]) -> None:
    plain, shifted = (
        full_size[f"window_attention 3B 720p, 21 frames{which}"].work for which in ("", ", shifted")
    )
    per_token = 16 * (plain.flops + shifted.flops) / 21600  # 32 layers, plain and shifted in turn
    assert per_token == pytest.approx(0.25e9, rel=0.04)


def test_1080p_goes_frame_by_frame_where_a_tensor_is_too_large() -> None:
    inputs = {
        size: vae.make("decode", VAE, *canvas)("cpu", 0) for size, canvas in vae.SIZES.items()
    }
    assert not inputs["720p"].by_frame and inputs["1080p"].by_frame


@pytest.mark.parametrize("part", ["decode", "encode"])
def test_frame_by_frame_is_exact(part: Any) -> None:
    given = vae.make(part, vae.TINY, 16, 32)("cpu", 0)
    network = given.plain()
    with torch.no_grad():
        _, state = vae.advance(network, given.past.float(), None, False)
        for past, x in ((None, given.past.float()), (state, given.x.float())):
            whole, state_whole = vae.advance(network, x, past, False)
            parts, state_parts = vae.advance(network, x, past, True)
            assert relative_rms([parts], [whole]) < 1e-5
            assert set(state_whole) == set(state_parts)
            for name, kept in state_whole.items():
                torch.testing.assert_close(state_parts[name], kept, rtol=1e-4, atol=1e-4)


def lengths_attention(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, other: Tensor, most: int, also: int
) -> Tensor:
    """What PyTorch's variable-length attention computes, which runs on a GPU alone."""
    assert starts is other and most == also == int(starts.diff().max())
    parts = [x.split(starts.diff().tolist()) for x in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention
    return torch.cat(
        [
            attend(*(x.transpose(0, 1)[None] for x in heads))[0].transpose(0, 1)
            for heads in zip(*parts, strict=True)
        ]
    )


@pytest.mark.parametrize("way", [window_attention.packed, window_attention.grouped])
def test_the_rivals_of_window_attention_are_right(
    way: Callable[[Any], Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", lengths_attention)
    (case,) = cases_of("window_attention", small=True)
    inputs = case.make("cpu", 1)
    assert relative_rms(way(inputs)(), case.reference(inputs)) < 2e-3  # fp16


def test_an_error_is_seen_and_nan_is_no_result() -> None:
    exact = torch.tensor([3.0, 4.0])
    assert relative_rms([exact], [exact]) == 0
    assert relative_rms([exact, exact * 1.1], [exact, exact]) == pytest.approx(0.1)
    assert isnan(relative_rms([torch.tensor([3.0, torch.nan])], [exact]))
    with pytest.raises(ValueError, match="a result is"):
        relative_rms([exact[:1]], [exact])


SMALL_LAYERS = {
    "cube": conv3d.Layer(form=conv3d.CUBE, channels=8, outputs=5, size=(2, 3, 4)),
    "strided": conv3d.Layer(form=conv3d.STRIDED, channels=8, outputs=4, size=(4, 6, 8)),
    "up": conv3d.Layer(form=conv3d.UP, channels=8, outputs=4, size=(2, 3, 5)),
    "up in time": conv3d.Layer(form=conv3d.UP_TIME, channels=8, outputs=4, size=(2, 3, 5)),
    "fp8": conv3d.Layer(form=conv3d.CUBE, channels=16, outputs=4, size=(2, 3, 4), fp8=True),
    "residual": conv3d.Layer(
        form=conv3d.CUBE, channels=8, outputs=4, size=(2, 3, 4), residual=True
    ),
}


@pytest.mark.parametrize("name", SMALL_LAYERS)
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format], ids=str)
def test_the_rivals_of_the_convolution_are_right(name: str, layout: torch.memory_format) -> None:
    given = conv3d.make(SMALL_LAYERS[name])("cpu", 1)
    assert relative_rms([conv3d.cudnn(layout)(given)()], conv3d.reference(given)) < 2e-3


@pytest.mark.parametrize("bits", [8, 10])
def test_colours_are_those_of_a_run(bits: int) -> None:
    colour = pytest.importorskip("vr_trt.runtime.colour")
    frames = pytest.importorskip("vr_trt.runtime.frames")
    pixel = frames.PixelFormat(
        bits=bits, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
    )
    clip = pixels.Clip(source=(2, 2), out=(2, 2), frames=1, bits=bits)
    for given, wanted in (
        (clip.from_rgb, colour.from_rgb(pixel)),
        (clip.to_rgb, colour.to_rgb(pixel)),
        (clip.limits, colour.limits(pixel)),
    ):
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-7)


def test_operations_of_a_convolution() -> None:
    layer = conv3d.LAYERS["128-128 720p"]
    assert layer.work.flops == 2 * 2 * 720 * 1280 * 128 * 128 * 27
    up = conv3d.LAYERS["512-512 up in time"]  # eight taps for each of four times two outputs
    assert up.results == (2, 360, 640)
    assert up.work.flops == 2 * 2 * 360 * 640 * 512 * 512 * 8


@pytest.mark.parametrize(("up_to", "taken"), [(1, "conv3d"), (4, "conv_few")])
def test_tuning_decides_which_kernel_makes_three_channels(
    up_to: int, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = conv3d.case(
        "few", conv3d.Layer(form=conv3d.CUBE, channels=8, outputs=3, size=(1, 2, 3)), True
    )
    assert case.tunable is not None and case.tunable.table == "conv_few"
    called: list[str] = []
    for name in ("conv3d", "conv_few"):
        monkeypatch.setattr(conv3d, name, lambda *a, name=name: called.append(name))
    case.tunable.way({**case.tunable.options(90), "UP_TO": up_to})(case.make("cpu", 0))()
    assert called == [taken]
