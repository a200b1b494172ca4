"""How a coder's call goes by groups of frames: by references here, by the kernels in a process apart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kernel_runs import run
from tests.vae_films import CALLS, KINDS, Film, Kind, clips, small_coder
from tests.vae_references import use_references
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.engines import vae_walk
from vr_trt.engines.triton_memory import card_bytes
from vr_trt.engines.triton_plan import TritonPlan
from vr_trt.engines.triton_stages import empty_coder, lay_out_coder
from vr_trt.engines.vae_walk import Walk
from vr_trt.errors import ModelError
from vr_trt.export.causal import Stream
from vr_trt.export.config import VAE, VaeConfig
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import STREAM
from vr_trt.kernels import conv_few
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_vae_walk.py")
TOLERANCE = 2e-5
# Two resnets, so that one follows another; widths that are no whole 16-byte words.
CONFIG = VaeConfig(channels=(6, 10, 12, 12), encoder_resnets=2, decoder_resnets=2, groups=2)


@pytest.mark.slow
def test_groups_of_frames_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=2)


@pytest.mark.gpu
def test_groups_of_frames_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=2)


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> None:
    use_references(monkeypatch)
    narrow = {**tuned("conv_few", CHIPS[0]), "FROM": 1}
    monkeypatch.setattr(conv_few, "tuned", lambda kernel, chip: narrow)


def errors(kind: Kind) -> list[float]:
    """How far from PyTorch each call's result is, and at the end each state."""
    plain, stream = small_coder(kind, torch.float32, CONFIG), Stream()
    film, found = Film(plain), []
    source = torch.empty(1, 3 if kind == "encoder" else 16)
    for call, x in zip(CALLS, clips(kind, source), strict=True):
        stream = Stream(None if call == "start" else stream.next)
        found.append(relative_rms(film.run(call, x), plain(x, stream)))
    for name, state in film.states.items():
        wanted = stream.next[name]
        kept = state[:, 1:-1, 1:-1].permute(3, 0, 1, 2)[None]
        found.append(relative_rms(kept[:, : wanted.shape[1]], wanted))
        assert not state[:, :: state.shape[1] - 1].any()  # no launch wrote to the border
        assert not state[:, :, :: state.shape[2] - 1].any()
    return found


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("kind", KINDS)
def test_groups_equal_pytorch_over_two_shots(kind: Kind) -> None:
    assert max(errors(kind)) <= TOLERANCE


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("kind", KINDS)
def test_so_does_a_call_that_takes_all_frames(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_walk, "groups_of", lambda count: [range(count)])
    assert max(errors(kind)) <= TOLERANCE


def _forgetting(layer: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The layer hands on what the first group of a call leaves, and nothing after that."""

    def changed(remember: Callable[..., None]) -> Callable[..., None]:
        seen = set[Walk]()

        def first_only(walk: Walk, name: str, keep: int, x: Tensor) -> None:
            if name != layer or walk not in seen:
                remember(walk, name, keep, x)
            if name == layer:
                seen.add(walk)

        return first_only

    return changed


def _each_a_start(in_turn: Callable[..., Any]) -> Callable[..., Any]:
    """Every group takes itself for the first."""
    return lambda walk, groups: iter(groups)


FORGOTTEN: list[tuple[Kind, str]] = [
    ("encoder", "conv_in"),
    ("encoder", "down_blocks.0.resnets.1.conv2"),
    ("encoder", "down_blocks.1.resnets.0.conv1"),
    ("encoder", "down_blocks.1.downsamplers.0.conv"),
    ("decoder", "up_blocks.2.resnets.0.conv1"),
    ("decoder", "up_blocks.2.upsamplers.0"),
    ("decoder", "up_blocks.3.resnets.1.conv2"),
    ("decoder", "conv_out"),
]


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize(("kind", "layer"), FORGOTTEN)
def test_what_a_group_does_not_hand_on_is_missed(
    kind: Kind, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, "_remember", _forgetting(layer)(Walk._remember))
    assert max(errors(kind)) > 20 * TOLERANCE


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("kind", KINDS)
def test_a_group_that_takes_itself_for_a_start_is_missed(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, "_in_turn", _each_a_start(Walk._in_turn))
    assert max(errors(kind)) > 20 * TOLERANCE


# Of 720p: five frames of x, or two latents.
FULL = {"encode_start": (1, 3, 5, 720, 1280), "decode_start": (1, 16, 2, 90, 160)}


@pytest.mark.parametrize(("stage", "most"), [("encode_start", 0.5), ("decode_start", 0.45)])
def test_the_arena_holds_two_frames(
    stage: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five; states are what they are, and so is what else a stage holds but its first pictures."""
    plan = TritonPlan(
        stage=stage, config=VAE, precision="bf16", sizes=FULL[stage], state={}, stream=STREAM
    )
    plan = replace(plan, state=empty_coder(plan).bfloat16().state_dict())
    grouped = card_bytes(lay_out_coder(plan, 90))
    monkeypatch.setattr(vae_walk, "groups_of", lambda count: [range(count)])
    whole = card_bytes(lay_out_coder(plan, 90))
    assert grouped.arena < most * whole.arena
    assert grouped.states == whole.states and grouped.own <= 1.01 * whole.own


def test_a_frame_of_2_to_the_31_elements_is_refused_before_anything_runs() -> None:
    """2160p is the largest; with 48 columns more a frame of 256 channels cannot be addressed."""
    sizes = {"fits": (1, 16, 1, 270, 480), "does not": (1, 16, 1, 270, 486)}
    plan = TritonPlan(
        stage="decode_image", config=VAE, precision="bf16", sizes=sizes["fits"], state={}
    )
    plan = replace(plan, state=empty_coder(plan).bfloat16().state_dict())
    assert lay_out_coder(plan, 90).outputs["x"].shape == (1, 3, 1, 2160, 3840)
    with pytest.raises(
        ModelError, match="at 3888x2160 a picture of 256 channels has 2.31 elements"
    ):
        lay_out_coder(replace(plan, sizes=sizes["does not"]), 90)
