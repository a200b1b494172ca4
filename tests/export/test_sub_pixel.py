"""The sub-pixel convolution alone, in float64, against what it replaces."""

from typing import Any

import pytest
import torch
from tests.networks import normal
from torch import Tensor

from vr_trt.export.causal import Stream
from vr_trt.export.sub_pixel import (
    FIRST_READS,
    KEEP_READS,
    SECOND_READS,
    STEP_READS,
    SubPixelUpsample,
    sub_pixel_weights,
)
from vr_trt.export.vae import Upsample

EXACT = 1e-13  # float64
SIZES = [(1, 1), (1, 3), (5, 3), (7, 9), (2, 1)]
WIDTH = 3


def make(*, time: bool, bias: float, video: bool = True) -> tuple[Upsample, SubPixelUpsample]:
    """The plain layer with random weights, and the folded one."""
    plain, folded = Upsample(WIDTH, time).double(), SubPixelUpsample(WIDTH, time=time, video=video)
    for seed, parameter in enumerate(plain.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed).double()
    weights = {name: parameter.data for name, parameter in plain.named_parameters()}
    weights["upscale_conv.bias"] *= bias
    plain.conv.name, folded.name = "conv", "up"
    upscale = weights["upscale_conv.weight"], weights["upscale_conv.bias"]
    parts: dict[str, Any] = {"first": FIRST_READS, "second": SECOND_READS}
    parts["step"] = STEP_READS if time else KEEP_READS
    for name, reads in parts.items():
        if hasattr(folded, name):
            part = getattr(folded, name)
            part.weight.data = sub_pixel_weights(upscale, weights["conv.weight"], reads)
            if not bias:
                part.weight.data = part.weight.data[:, :-1]
            part.bias.data = weights["conv.bias"].repeat(4 * len(reads))
    return plain.requires_grad_(False), folded.double().requires_grad_(False)


def compare(ours: Tensor, wanted: Tensor) -> None:
    """The border and the middle, and each frame, on their own."""
    assert ours.shape == wanted.shape
    off, (height, width) = (ours - wanted).abs(), wanted.shape[-2:]
    border = torch.ones(height, width, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    scale = wanted.abs().max()
    for t in range(wanted.shape[2]):
        assert off[:, :, t][..., border].max() <= EXACT * scale
        if not border.all():
            assert off[:, :, t][..., ~border].max() <= EXACT * scale


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("bias", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("split", [[2], [3], [4], [2, 1], [2, 2], [3, 1, 2], [2, 1, 1, 1]])
def test_a_clip_in_any_split(
    split: list[int], bias: float, time: bool, size: tuple[int, int]
) -> None:
    plain, folded = make(time=time, bias=bias)
    x = normal(1, WIDTH, sum(split), *size, seed=9).double()
    theirs, ours, at = Stream(), Stream(), 0
    for count in split:
        part = x[:, :, at : at + count]
        compare(folded(part, ours), plain(part, theirs))
        at += count
        theirs, ours = Stream(theirs.next), Stream(ours.next)
        assert ours.past is not None and ours.past["up"].shape[2] == (1 if time else 2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_picture(bias: float, time: bool, size: tuple[int, int]) -> None:
    plain, folded = make(time=time, bias=bias, video=False)
    x = normal(1, WIDTH, 1, *size, seed=9).double()
    stream = Stream()
    compare(folded(x, stream), plain(x, Stream()))
    assert not stream.next  # a picture keeps nothing


def test_the_bias_would_leak_in_without_its_channel() -> None:
    """The test of the test: folding it into the bias is wrong at the border alone."""
    plain, folded = make(time=True, bias=1.0)
    x = normal(1, WIDTH, 3, 5, 5, seed=9).double()
    wanted = plain(x, Stream())
    for part in (folded.first, folded.second, folded.step):
        part.bias.data += part.weight.data[:, -1].sum((1, 2, 3))
        part.weight.data = part.weight.data[:, :-1]
    ours = folded(x, Stream())
    off = (ours - wanted).abs()
    assert off[..., 2:-2, 2:-2].max() < 1e-10
    assert off[..., 0, :].max() > 0.1 and off[..., -1].max() > 0.1


@pytest.mark.parametrize(
    ("reads", "frames", "taps"),
    [(FIRST_READS, 1, 1), (SECOND_READS, 2, 2), (STEP_READS, 2, 2), (KEEP_READS, 1, 3)],
)
def test_taps_are_eight_or_twelve(reads: Any, frames: int, taps: int) -> None:
    planes = 1 if reads is KEEP_READS else 2
    upscale = normal(4 * planes * WIDTH, WIDTH, 1, 1, 1), normal(4 * planes * WIDTH)
    weights = sub_pixel_weights(upscale, normal(WIDTH, WIDTH, 3, 3, 3), reads)
    assert weights.shape == (4 * frames * WIDTH, WIDTH + 1, taps, 2, 2)


@pytest.mark.parametrize("time", [False, True])
def test_a_later_frame_does_not_reach_back(time: bool) -> None:
    _, folded = make(time=time, bias=1.0)
    x = normal(1, WIDTH, 4, 3, 3, seed=9).double()
    before = folded(x, Stream())
    x[:, :, 2] += 1
    after = folded(x, Stream())
    first = 3 if time else 2  # frames 0 | 1 2 | 3 4 | 5 6, or 0 1 2 3
    assert torch.equal(after[:, :, :first], before[:, :, :first])
    assert not torch.equal(after[:, :, first], before[:, :, first])
