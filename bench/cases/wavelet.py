"""The wavelet correction of fp16 pictures; the rival is the graph's module, five convolutions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Tunable, Way, sized
from vr_trt.bench.cases.networks import poisoned
from vr_trt.bench.cases.pixels import Clip, pytorch
from vr_trt.bench.roofline import Work
from vr_trt.export.colour_fix import Wavelet as WaveletModule
from vr_trt.kernels.tuning import tuned
from vr_trt.kernels.wavelet import Wavelet, wavelet_reference

CLIPS = {
    "1080p": Clip(source=(1, 1), out=(1080, 1920), frames=4),
    "720p": Clip(source=(1, 1), out=(720, 1280), frames=4, importance=3),
}
SMALL = {"5": Clip(source=(1, 1), out=(5, 9), frames=1)}
AWKWARD = {"1 sample": Clip(source=(1, 1), out=(1, 1), frames=2)} | {
    "odd": Clip(source=(1, 1), out=(67, 999), frames=3)
}
LIMIT = 1e-4
FLOPS_A_SAMPLE = 2 * 2 * 63  # two directions


@dataclass(frozen=True, kw_only=True)
class Inputs:
    clip: Clip
    restored: Tensor  # [3, F, Hp, Wp] fp16, of which [H, W] is the picture
    reference: Tensor
    out: Tensor  # [3, F, H, W] fp32
    room: Tensor  # [3, F, W, H] fp32

    @property
    def pictures(self) -> tuple[Tensor, Tensor]:
        """Without the padding."""
        height, width = self.clip.out
        return self.restored[..., :height, :width], self.reference[..., :height, :width]


def make(clip: Clip) -> Callable[[str, int], Inputs]:
    """Random pictures; the output and what is between are filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        height, width = clip.out
        return Inputs(
            clip=clip,
            restored=clip.canvas(device, seed),
            reference=clip.canvas(device, seed + 1),
            out=torch.full((3, clip.frames, height, width), torch.nan, device=device),
            room=torch.full((3, clip.frames, width, height), torch.nan, device=device),
        )

    return inputs


def ours_with(options: Mapping[str, int] | None) -> Callable[[Inputs], Callable[[], Tensor]]:
    """The kernels, with the tuned sizes or others."""

    def ours(given: Inputs) -> Callable[[], Tensor]:
        correct = Wavelet(*given.clip.out, given.out.device, options)
        out, room = poisoned(given.out), poisoned(given.room)
        return lambda: correct(given.restored, given.reference, out, room)

    return ours


def module_inputs(given: Inputs) -> tuple[Any, ...]:
    """[F, 3, H, W] fp16 each."""
    restored, reference = (p.transpose(0, 1).contiguous() for p in given.pictures)
    return restored, reference


def _turned(way: Way) -> Way:
    """The module gives [F, 3, H, W]."""

    def channels_first(given: Inputs) -> Callable[[], Tensor]:
        call = way(given)
        return lambda: call().transpose(0, 1)

    return channels_first


def case(name: str, clip: Clip, timed: bool) -> Case:
    """One clip."""
    samples = 3 * clip.frames * clip.out[0] * clip.out[1]
    return Case(
        name=f"wavelet {name}",
        kernel="wavelet",
        importance=clip.importance,
        work=Work(
            unit="copy",
            flops=float(FLOPS_A_SAMPLE * samples),
            bytes=float((2 + 2 + 4) * samples),
        ),
        limit=LIMIT,
        make=make(clip),
        reference=lambda given: (wavelet_reference(*given.pictures),),
        ways={
            OURS: ours_with(None),
            PYTORCH: _turned(pytorch(WaveletModule(), module_inputs)),
            COMPILED: _turned(pytorch(WaveletModule(), module_inputs, compiles=True)),
        },
        shape={"frames": clip.frames},
        timed=timed,
        tunable=Tunable(table="wavelet", key={}, options=partial(tuned, "wavelet"), way=ours_with),
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=CLIPS, awkward=AWKWARD)
