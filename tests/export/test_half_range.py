"""What 16 bits hold: where they overflow, and that the exported graphs stay wide there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tests.networks import GOLDEN_VAE, golden_tensors, normal
from tests.tiny_model import TEXT, TINY_3B, TINY_VAE, make_tiny_model
from torch import Tensor

from vr_trt.errors import UsageError
from vr_trt.export.causal import Stream
from vr_trt.export.export_model import ExportPlan
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder
from vr_trt.export.golden import relative_rms
from vr_trt.export.half_range import (
    LARGEST_FP16,
    Rounding,
    fitting_stream,
    is_stream,
)
from vr_trt.export.onnx_graph import trace
from vr_trt.export.random_weights import random_tensors
from vr_trt.export.stages import StageShape, coder_stages, generator_stages
from vr_trt.export.vae import STREAM, VIDEO, Decoder

SHAPE = StageShape(height=32, width=32, latents=2)
FP16, FP32 = torch.float16, torch.float32
LIMIT = 5e-3
LATENT = normal(1, 16, 2, 4, 4)
SQUARES_OVERFLOW, ALL_OVERFLOWS = 1e3, 2.0**16  # times what the golden decoder has between norms


def decoder(dtype: torch.dtype = FP32, stream: float = STREAM) -> Decoder:
    """The golden decoder, between norms `stream` times as loud as the checkpoint's."""
    weights = golden_tensors("vae_tiny_weights")
    return fold_decoder(GOLDEN_VAE, weights, replace(VIDEO, stream=stream), dtype)


def wanted() -> Tensor:
    return decoder()(LATENT, Stream())


def exported(network: Decoder, path: Path) -> Tensor:
    """What ONNX Runtime makes of the first latents by the exported graph."""
    stage = next(iter(coder_stages(lambda: network, lambda: network, SHAPE)))
    assert stage.name == "decode_start"
    ir.save(trace(stage), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (x,) = session.run(["x"], {"latent": LATENT.numpy().astype(np.float16)})
    return torch.from_numpy(x).float()


def test_without_rounding_nothing_changes_and_sizes_are_seen() -> None:
    network, seen = decoder(), []
    network.up_blocks[3].resnets[2].register_forward_hook(lambda _m, _a, x: seen.append(x))  # type: ignore[union-attr, index]
    ran = Rounding(network)
    assert torch.equal(ran.run(LATENT, Stream()), wanted())
    assert torch.equal(ran.output, wanted())
    assert ran.largest["up_blocks.3.resnets.2/add"] == float(seen[0].abs().max())
    assert is_stream("up_blocks.3.resnets.2/add") and is_stream("conv_in/conv3d")
    for name in ("conv_out/conv3d", "up_blocks.3.resnets.2.norm1/silu"):
        assert name in ran.largest and not is_stream(name)


@pytest.mark.parametrize("dtype", [FP16, torch.bfloat16], ids=["fp16", "bf16"])
def test_rounding_tells_what_sixteen_bits_really_cost(dtype: torch.dtype) -> None:
    real = relative_rms(decoder(dtype)(LATENT.to(dtype), Stream()), wanted())
    rounded = decoder(dtype).float()
    told = relative_rms(
        Rounding(rounded, dtype, ("norm", "softmax")).run(LATENT, Stream()), wanted()
    )
    assert told == pytest.approx(real, rel=0.3)
    narrow = relative_rms(Rounding(rounded, dtype).run(LATENT, Stream()), wanted())
    assert narrow > 1.05 * told  # norms and softmax are worth their width


def test_norms_of_loud_tensors_are_exported_wide(tmp_path: Path) -> None:
    """Squares go beyond fp16, what is squared does not."""
    ran = Rounding(decoder(stream=SQUARES_OVERFLOW))
    ran.run(LATENT, Stream())
    loudest = max(value for name, value in ran.largest.items() if is_stream(name))
    assert loudest < LARGEST_FP16 < loudest**2
    loud = decoder(FP16, SQUARES_OVERFLOW)
    naive = Rounding(loud.float(), FP16).run(LATENT, Stream())
    assert not naive.isfinite().all() or relative_rms(naive, wanted()) > 0.5
    ours = exported(decoder(FP16, SQUARES_OVERFLOW), tmp_path / "loud.onnx")
    assert relative_rms(ours, wanted()) < LIMIT


def test_what_overflows_between_norms_is_scaled_until_it_fits(tmp_path: Path) -> None:
    loud = decoder(FP16, ALL_OVERFLOWS)
    assert not loud(LATENT.half(), Stream()).isfinite().all()
    ran = Rounding(decoder(stream=ALL_OVERFLOWS))
    ran.run(LATENT, Stream())
    loudest = max(value for name, value in ran.largest.items() if is_stream(name))
    stream = fitting_stream(loudest, ALL_OVERFLOWS)
    assert STREAM < stream < ALL_OVERFLOWS and np.log2(stream) % 1 == 0
    ours = exported(decoder(FP16, stream), tmp_path / "fitted.onnx")
    assert relative_rms(ours, wanted()) < LIMIT


@pytest.mark.parametrize(
    ("largest", "fitting"),
    [(1.0, STREAM), (LARGEST_FP16 / 4.1, STREAM), (LARGEST_FP16 / 3.9, 2.0), (1e6, 2.0**-5)],
)
def test_the_stream_that_fits(largest: float, fitting: float) -> None:
    assert fitting_stream(largest, STREAM) == fitting
    assert fitting_stream(largest * fitting / STREAM, fitting) == fitting


@pytest.mark.parametrize("stream", [0.0, -1.0, float("inf"), float("nan")])
def test_no_other_stream_is_exported(stream: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scaled by .* give a positive number"):
        ExportPlan(model=make_tiny_model(tmp_path), stream=stream)


@pytest.mark.parametrize("dtype", [FP16, torch.bfloat16], ids=["fp16", "bf16"])
def test_statistics_are_wide_in_graphs_of_sixteen_bits(dtype: torch.dtype) -> None:
    network = fold_decoder(TINY_VAE, dict(random_tensors(TINY_VAE)), VIDEO, dtype)
    coders = coder_stages(lambda: network, lambda: network, SHAPE)
    graph = trace(next(iter(coders))).graph
    assert {stashed(node) for node in graph if node.op_type == "GroupNormalization"} == {1}
    (softmax,) = (node for node in graph if node.op_type == "Softmax")
    assert is_wide(softmax) and [use.node.op_type for use in softmax.outputs[0].uses()] == ["Cast"]

    folded = fold_generator(TINY_3B, dict(random_tensors(TINY_3B)), TEXT, dtype=dtype)
    graph = trace(next(iter(generator_stages(folded, SHAPE)))).graph
    assert {stashed(node) for node in graph if node.op_type == "RMSNormalization"} == {1}
    means = [node for node in graph if node.op_type == "ReduceMean"]
    assert len(means) == 6 and all(map(is_wide, means))  # video's and text's heads, three blocks
    assert all(node.inputs[0].producer().op_type == "Mul" for node in means)  # type: ignore[union-attr]


def stashed(node: ir.Node) -> int:
    """The type in which a norm finds its statistics: 1 is fp32."""
    return node.attributes["stash_type"].as_int() if "stash_type" in node.attributes else 1


def is_wide(node: ir.Node) -> bool:
    came = node.inputs[0]
    return came is not None and came.dtype == ir.DataType.FLOAT
