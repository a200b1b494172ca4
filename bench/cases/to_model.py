"""`to_model`: NV12 or P010 to the canvas in fp16; the rival is the graph's module in PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Tunable, Way, sized
from vr_trt.bench.cases.networks import poisoned
from vr_trt.bench.cases.pixels import Clip, Planes, on, pytorch
from vr_trt.bench.roofline import Work
from vr_trt.export.pixels import ToModelSub
from vr_trt.kernels.to_model import ToModel, ToModelTables, to_model_reference, to_model_tables
from vr_trt.kernels.tuning import tuned

# Enlarged, the usual; as large as it is; reduced.
CLIPS = {
    "540p to 1080p": Clip(source=(540, 960), out=(1080, 1920), frames=8),
    "1080p to 1080p": Clip(source=(1080, 1920), out=(1080, 1920), frames=8),
    "2160p P010 to 720p": Clip(
        source=(2160, 3840), out=(720, 1280), frames=8, bits=10, importance=3
    ),
    "480p to 720p": Clip(source=(480, 854), out=(720, 1281), frames=8, importance=3),
}
SMALL = {"8 to 15": Clip(source=(8, 20), out=(15, 37), frames=1)}
AWKWARD = {"1 sample": Clip(source=(1, 1), out=(3, 5), frames=2)} | {
    "odd, P010": Clip(source=(17, 333), out=(51, 999), frames=3, bits=10)
}
LIMIT = 1e-3  # an fp16 step
FLOPS_A_SAMPLE = 2 * (4 * 3 + 3)  # of the resize, with four taps a direction; the rest is less


@dataclass(frozen=True, kw_only=True)
class Inputs:
    clip: Clip
    tables: ToModelTables
    planes: Planes
    out: Tensor  # [3, F, Hp, Wp] fp16


def make(clip: Clip) -> Callable[[str, int], Inputs]:
    """Random planes, and the output filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        matrices = (*clip.resize(), *clip.chroma(clip.source, up=True))
        out = torch.full((3, clip.frames, *clip.padded), torch.nan, device=device).half()
        return Inputs(
            clip=clip,
            tables=to_model_tables(clip.to_rgb, *matrices),
            planes=clip.planes(clip.source, device, seed),
            out=out,
        )

    return inputs


def ours_with(options: Mapping[str, int] | None) -> Callable[[Inputs], Callable[[], Tensor]]:
    """The kernel, with the tuned sizes or others."""

    def ours(given: Inputs) -> Callable[[], Tensor]:
        convert = ToModel(given.tables, given.out.device, options)
        out = poisoned(given.out)
        return lambda: convert(*given.planes, out, given.clip.shift)

    return ours


def reference(given: Inputs) -> tuple[Tensor, ...]:
    """In fp32."""
    y, u, v = given.planes
    return (to_model_reference(y, u, v, given.tables, given.clip.shift),)


def module_inputs(given: Inputs) -> tuple[Any, ...]:
    """What the graph's module takes: codes in the low bits, and dense matrices."""
    clip, device = given.clip, str(given.out.device)
    codes: Sequence[Tensor] = given.planes
    if clip.shift:
        codes = [(plane.int() >> clip.shift).to(torch.int16) for plane in given.planes]
    rows, cols, chroma_rows, chroma_cols = on(
        device, [*clip.resize(), *clip.chroma(clip.source, up=True)]
    )
    (matrix,) = on(device, [clip.to_rgb])
    return (*codes, matrix, rows, cols.T, chroma_rows, chroma_cols.T)


def case(name: str, clip: Clip, timed: bool) -> Case:
    """One clip."""
    samples = 3 * clip.frames * clip.padded[0] * clip.padded[1]
    return Case(
        name=f"to_model {name}",
        kernel="to_model",
        importance=clip.importance,
        work=Work(
            unit="copy",
            flops=float(FLOPS_A_SAMPLE * samples),
            bytes=float(clip.plane_bytes(clip.source) + 2 * samples),
        ),
        limit=LIMIT,
        make=make(clip),
        reference=reference,
        ways={
            OURS: ours_with(None),
            PYTORCH: _squeezed(pytorch(ToModelSub(), module_inputs)),
            COMPILED: _squeezed(pytorch(ToModelSub(), module_inputs, compiles=True)),
        },
        shape={"frames": clip.frames, "bits": clip.bits},
        timed=timed,
        tunable=Tunable(
            table="to_model", key={}, options=partial(tuned, "to_model"), way=ours_with
        ),
    )


def _squeezed(way: Way) -> Way:
    """The module gives [1, 3, F, Hp, Wp]."""

    def without_batch(given: Inputs) -> Callable[[], Tensor]:
        call = way(given)
        return lambda: call()[0]

    return without_batch


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=CLIPS, awkward=AWKWARD)
