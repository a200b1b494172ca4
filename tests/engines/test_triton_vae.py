"""The VAE on our kernels: run in a process of its own, see `tests.kernel_runs`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kernel_runs import run
from tests.networks import GOLDEN_VAE, golden_tensors, loud_weights

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.engines import triton_vae
from vr_trt.engines.static_arena import Arena
from vr_trt.engines.triton_vae import TritonCoderStage, own_arena
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.errors import ModelError
from vr_trt.export.config import VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import fp8_layers
from vr_trt.export.vae import VIDEO, Encoder

RUNS = Path(__file__).with_name("run_triton_vae.py")
ODD = VaeConfig(channels=(6, 12, 12, 12), encoder_resnets=1, decoder_resnets=1, groups=3)


def test_the_vae_equals_pytorch_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=5)


@pytest.mark.slow
def test_more_of_the_vae_equals_pytorch_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-m slow")
    run(RUNS, "cpu", at_least=3)


@pytest.mark.gpu
def test_the_vae_equals_pytorch_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-m 'slow or gpu or not slow'")
    run(RUNS, "cuda", at_least=2)


def test_a_stage_is_laid_out_without_computing() -> None:
    """Its inputs are views of its first buffer, and its states are shared with the next stage."""
    network = fold_decoder(GOLDEN_VAE, golden_tensors("vae_tiny_weights"), VIDEO, torch.float16)
    layers, states = pack_coder(network), dict[str, torch.Tensor]()
    start = TritonCoderStage(network, layers, "start", (2, 3, 5), states)
    step = TritonCoderStage(network, layers, "step", (1, 3, 5), states)
    assert start.inputs["latent"].shape == (1, 16, 2, 3, 5) and set(start.inputs) == {"latent"}
    assert start.outputs["x"].shape == (1, 3, 5, 24, 40)
    assert step.outputs["x"].shape == (1, 3, 4, 24, 40)
    assert {name.removeprefix("state.") for name in step.inputs} == {"latent", *network.states}
    for name in network.states:
        assert start.outputs[f"next.{name}"] is step.inputs[f"state.{name}"]


def test_an_arena_is_as_large_as_the_chip_s_tiles_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the shapes that size it must be tuned as the stage that lives in it."""
    network = fold_encoder(GOLDEN_VAE, golden_tensors("vae_tiny_weights"), VIDEO, torch.float32)
    layers, size = pack_coder(network), (5, 96, 160)
    asked: list[int] = []
    monkeypatch.setattr(triton_vae, "capability_of", lambda device: 90)
    monkeypatch.setattr(torch, "empty", _noting(asked))
    own_arena(network, replace(layers, device=torch.device("cuda")), "start", size)
    monkeypatch.undo()
    wanted = TritonCoderStage(network, replace(layers, chip=90), "start", size, {}, Arena())
    as_interpreted = TritonCoderStage(network, layers, "start", size, {}, Arena())
    assert asked[-1] == wanted.arena.size != as_interpreted.arena.size


def _noting(asked: list[int]) -> Callable[..., torch.Tensor]:
    """`torch.empty` without a GPU: the size that was asked of one is noted."""
    empty = torch.empty

    def on_no_gpu(size: int, *more: Any, **how: Any) -> torch.Tensor:
        if how.get("device") == torch.device("cuda"):
            asked.append(size)
            how["device"] = "meta"
        return empty(size, *more, **how)

    return on_no_gpu


def test_fp8_layers_keep_fp8_states() -> None:
    config = VaeConfig(channels=(16, 16, 16, 16), encoder_resnets=1, decoder_resnets=1, groups=4)
    network = fold_decoder(config, loud_weights(config), VIDEO, torch.float16)
    amax = dict.fromkeys(fp8_layers(network), 7.0)
    layers, states = pack_coder(network, amax), dict[str, torch.Tensor]()
    TritonCoderStage(network, layers, "start", (2, 3, 5), states)
    for name, state in states.items():
        assert (state.dtype == torch.float8_e4m3fn) == (name in amax)
    assert layers.steps == dict.fromkeys(amax, 7.0 / 448)
    with pytest.raises(ModelError, match="names conv_in, which takes no fp8"):
        pack_coder(network, {"conv_in": 1.0})


def test_pictures_have_whole_words_of_channels() -> None:
    network = fold_encoder(ODD, loud_weights(ODD), VIDEO, torch.float16)
    layers = pack_coder(network)
    first, last = layers.convs["conv_in"], layers.convs["conv_out"]
    assert (first.channels, first.outputs) == (8, 8) and (last.channels, last.outputs) == (16, 16)
    assert not first.weight[6:].any() and not first.bias[6:].any()
    assert layers.norms["down_blocks.0.resnets.0.norm1"].weight.shape == (6,)


def test_unfolded_networks_are_refused() -> None:
    with pytest.raises(ModelError, match="fold the VAE first"):
        pack_coder(Encoder(GOLDEN_VAE))
