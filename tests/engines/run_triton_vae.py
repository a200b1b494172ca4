"""The VAE on our kernels against the folded network in PyTorch; see `tests.kernel_runs`."""

from typing import Any

import pytest
import torch
from tests.kernel_runs import DEVICE, HALVES
from tests.networks import GOLDEN_VAE, golden_tensors, loud_weights, normal
from torch import Tensor

from vr_trt.engines.triton_vae import Call, TritonCoderStage
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.export.causal import Stream
from vr_trt.export.config import VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import Coder, observe, quantise_coder
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import IMAGE, VIDEO, Form
from vr_trt.kernels import conv_few, conv_sizes, group_norm
from vr_trt.kernels.tuning import CHIPS, tuned
from vr_trt.runtime.session import call
from vr_trt.runtime.triton_session import DeviceTensor, TritonSession

TOLERANCE = 2e-5
LARGEST_RATIO = 1.2  # of our error in 16 bits to PyTorch's own
# One resnet, and widths that change at every level: every kind of layer, in a short time.
SMALL = VaeConfig(channels=(8, 16, 16, 24), encoder_resnets=1, decoder_resnets=1, groups=4)
# Widths that are no whole 16-byte words in any precision: filled up with zeros.
RAGGED = VaeConfig(channels=(6, 10, 14, 14), encoder_resnets=1, decoder_resnets=1, groups=2)
FP8 = VaeConfig(channels=(16, 16, 32, 32), encoder_resnets=1, decoder_resnets=1, groups=4)
SIZE = (16, 24)  # rows and columns of pixels
KINDS = ["encoder", "decoder"]


def network(
    kind: str, form: Form, dtype: torch.dtype, config: VaeConfig = SMALL, seed: int = 0
) -> Coder:
    golden = config is GOLDEN_VAE
    weights = golden_tensors("vae_tiny_weights") if golden else loud_weights(config, seed)
    fold = fold_encoder if kind == "encoder" else fold_decoder
    return fold(config, weights, form, dtype).to(DEVICE)


def clip(kind: str, latents: int, dtype: torch.dtype, *, starts: bool, seed: int = 1) -> Tensor:
    height, width = SIZE
    if kind == "encoder":
        frames = 4 * latents - 3 if starts else 4 * latents
        return normal(1, 3, frames, height, width, seed=seed).to(DEVICE, dtype)
    return normal(1, 16, latents, height // 8, width // 8, seed=seed).to(DEVICE, dtype)


def run(stage: TritonCoderStage, x: Tensor) -> Tensor:
    source, result = ("x", "latent") if "x" in stage.inputs else ("latent", "x")
    stage.inputs[source].copy_(x)
    stage.outputs[result].fill_(torch.nan)
    stage.run()
    return stage.outputs[result].clone()


def stage(plain: Coder, name: Call, x: Tensor, states: dict[str, Tensor]) -> TritonCoderStage:
    return TritonCoderStage(plain, pack_coder(plain), name, _size(x), states)


def _size(x: Tensor) -> tuple[int, int, int]:
    frames, height, width = x.shape[2:]
    return frames, height, width


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a large block as for a small one.

    What tables of true widths decide otherwise: frames go in pairs, and `conv_out` by taps.
    """
    sizes = {**conv_sizes._INTERPRETED, "BLOCK_M": 512, "FRAMES": 2}
    monkeypatch.setattr(conv_sizes, "_INTERPRETED", sizes)
    narrow = {**tuned("conv_few", CHIPS[0]), "FROM": 1}
    monkeypatch.setattr(conv_few, "tuned", lambda kernel, chip: narrow)
    monkeypatch.setattr(group_norm, "_PIXELS", 512)


@pytest.mark.parametrize("kind", [pytest.param("encoder", marks=pytest.mark.slow), "decoder"])
def test_sessions_equal_to_pytorch_in_fp32(kind: str) -> None:
    """A shot's start and a step as the runtime drives them, and the states that both leave."""
    plain = network(kind, VIDEO, torch.float32)
    source, result = ("x", "latent") if kind == "encoder" else ("latent", "x")
    stream, given = Stream(), dict[str, Any]()
    calls: tuple[tuple[int, Call], ...] = (2, "start"), (1, "step")
    for latents, name in calls:
        x = clip(kind, latents, torch.float32, starts=name == "start", seed=latents)
        made, stream = dict[str, Tensor](), stream if name == "start" else Stream(stream.next)
        wanted = plain(x, stream)
        session = TritonSession(stage(plain, name, x, made), name)
        given = dict[str, Any](call(session, {source: DeviceTensor(x), **given}))
        assert relative_rms(given.pop(result).value, wanted) <= TOLERANCE
        assert set(made) == set(plain.states) and len(given) == len(made)
        check_states(made, stream)
        given = {kept.replace("next.", "state."): value for kept, value in given.items()}
    assert all(given[f"state.{name}"].value is state for name, state in made.items())  # in place


def check_states(states: dict[str, Tensor], stream: Stream) -> None:
    for name, state in states.items():
        kept = state[:, 1:-1, 1:-1].permute(3, 0, 1, 2)[None]
        wanted = stream.next[name]
        assert relative_rms(kept[:, : wanted.shape[1]], wanted) <= TOLERANCE, name
        assert not state[:, :: state.shape[1] - 1].any()  # no launch wrote to the border
        assert not state[:, :, :: state.shape[2] - 1].any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_as_near_to_fp32_as_pytorch_in_the_same_precision(kind: str) -> None:
    """The golden network, from a shot's start."""
    for dtype in HALVES:
        plain = network(kind, VIDEO, dtype, GOLDEN_VAE)
        wide = network(kind, VIDEO, torch.float32, GOLDEN_VAE)
        wide.load_state_dict({name: x.float() for name, x in plain.state_dict().items()})
        x = clip(kind, 2, dtype, starts=True)
        exact = wide(x.float(), Stream())
        limit = LARGEST_RATIO * relative_rms(plain(x, Stream()).float(), exact)
        assert relative_rms(run(stage(plain, "start", x, {}), x).float(), exact) <= limit


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture(kind: str) -> None:
    plain = network(kind, IMAGE, torch.float32)
    x = clip(kind, 1, torch.float32, starts=True)
    wanted = plain(x, Stream())
    ours = stage(plain, "image", x, {})
    assert relative_rms(run(ours, x), wanted) <= TOLERANCE
    (result,) = ours.outputs.values()
    result.fill_(torch.nan)
    ours.run()  # as a graph is replayed: its input is still there
    assert relative_rms(result, wanted) <= TOLERANCE
    assert set(ours.inputs) | set(ours.outputs) == {"x", "latent"}


@pytest.mark.parametrize("kind", KINDS)
def test_widths_that_are_no_whole_words(kind: str) -> None:
    plain = network(kind, IMAGE, torch.float32, RAGGED)
    x = clip(kind, 1, torch.float32, starts=True)
    assert relative_rms(run(stage(plain, "image", x, {}), x), plain(x, Stream())) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_shot_of_widths_that_are_no_whole_words(kind: str) -> None:
    plain, states = network(kind, VIDEO, torch.float32, RAGGED), dict[str, Tensor]()
    x, later = (clip(kind, n, torch.float32, starts=n == 2, seed=n) for n in (2, 1))
    first = Stream()
    wanted = plain(x, first)
    assert relative_rms(run(stage(plain, "start", x, states), x), wanted) <= TOLERANCE
    wanted = plain(later, Stream(first.next))
    assert relative_rms(run(stage(plain, "step", later, states), later), wanted) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fp8_is_as_emulated(kind: str) -> None:
    plain = network(kind, VIDEO, torch.float16, FP8)
    x = clip(kind, 2, torch.float16, starts=True)
    amax = observe(plain, [x])
    wide = network(kind, VIDEO, torch.float32, FP8)
    exact = wide(x.float(), Stream())
    emulated = relative_rms(quantise_coder(wide, amax)(x.float(), Stream()), exact)
    ours = TritonCoderStage(plain, pack_coder(plain, amax), "start", _size(x), {})
    assert relative_rms(run(ours, x).float(), exact) <= 1.3 * emulated
