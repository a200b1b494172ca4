"""`to_video` without correction: the canvas in fp16 to NV12 or P010; the rival is the module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Tunable, Way, relative_rms, sized
from vr_trt.bench.cases.networks import poisoned
from vr_trt.bench.cases.pixels import Clip, Planes, on, pytorch
from vr_trt.bench.roofline import Work
from vr_trt.export.pixels import ToVideoSub
from vr_trt.kernels.to_video import ToVideo, ToVideoTables, to_video_reference, to_video_tables
from vr_trt.kernels.tuning import tuned

CLIPS = {
    "1080p": Clip(source=(1080, 1920), out=(1080, 1920), frames=4),
    "720p P010": Clip(source=(720, 1280), out=(720, 1280), frames=4, bits=10, importance=3),
}
SMALL = {"15": Clip(source=(8, 8), out=(15, 37), frames=1)}
AWKWARD = {"1 sample": Clip(source=(1, 1), out=(1, 1), frames=2)} | {
    "odd, P010": Clip(source=(1, 1), out=(51, 999), frames=3, bits=10)
}
LIMIT = 1e-3  # of codes: some of them one away, where the last bit decides a rounding
FLOPS_A_PIXEL = 2 * (3 + (7 * 8 * 2 + 6) / 4)  # luma's matrix; a chroma sample's taps, two planes


@dataclass(frozen=True, kw_only=True)
class Inputs:
    clip: Clip
    tables: ToVideoTables
    x: Tensor  # [3, F, Hp, Wp] fp16
    planes: Planes  # written


def make(clip: Clip) -> Callable[[str, int], Inputs]:
    """A random picture, and planes of random codes to overwrite."""

    def inputs(device: str, seed: int) -> Inputs:
        dither = np.random.default_rng(seed).uniform(0.01, 0.99, clip.out).astype(np.float32)
        chroma = clip.chroma(clip.out, up=False)
        return Inputs(
            clip=clip,
            tables=to_video_tables(clip.from_rgb, dither, clip.limits, *chroma),
            x=clip.canvas(device, seed),
            planes=clip.planes(clip.out, device, seed + 1),
        )

    return inputs


def ours_with(options: Mapping[str, int] | None) -> Callable[[Inputs], Callable[[], Planes]]:
    """The kernel, with the tuned sizes or others."""

    def ours(given: Inputs) -> Callable[[], Planes]:
        convert = ToVideo(given.tables, given.x.device, options)
        for plane in given.planes:
            poisoned(plane)

        def call() -> Planes:
            convert(given.x, *given.planes, given.clip.shift)
            return given.planes

        return call

    return ours


def module_inputs(given: Inputs) -> tuple[Any, ...]:
    """What the graph's module takes."""
    tables, device = given.tables, str(given.x.device)
    rows, cols = on(device, given.clip.chroma(given.clip.out, up=False))
    x = given.x[None]
    reference = torch.zeros((), device=device).expand(x.shape)  # without correction it is not read
    return (
        x,
        reference,
        *on(device, [tables.from_rgb, tables.dither, tables.limits]),
        rows,
        cols.T,
    )


def error(given: Any, wanted: Any) -> float:
    """Relative rms of codes, given as stored in 16 bits or as numbers."""
    return relative_rms([plane.int() for plane in given], wanted)


def _shifted(way: Way) -> Way:
    """The module's codes lie in the low bits."""

    def as_stored(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        call = way(given)
        if not given.clip.shift:
            return call
        return lambda: tuple(plane.int() << given.clip.shift for plane in call())

    return as_stored


def case(name: str, clip: Clip, timed: bool) -> Case:
    """One clip."""
    pixels = clip.frames * clip.out[0] * clip.out[1]
    module = ToVideoSub("none", torch.uint8 if clip.bits == 8 else torch.uint16)
    return Case(
        name=f"to_video {name}",
        kernel="to_video",
        importance=clip.importance,
        work=Work(
            unit="copy",
            flops=FLOPS_A_PIXEL * pixels,
            bytes=float(
                3 * 2 * pixels + 4 * clip.out[0] * clip.out[1] + clip.plane_bytes(clip.out)
            ),
        ),
        limit=LIMIT,
        make=make(clip),
        reference=lambda given: to_video_reference(given.x, given.tables, given.clip.shift),
        ways={
            OURS: ours_with(None),
            PYTORCH: _shifted(pytorch(module, module_inputs)),
            COMPILED: _shifted(pytorch(module, module_inputs, compiles=True)),
        },
        error=error,
        shape={"frames": clip.frames, "bits": clip.bits},
        timed=timed,
        tunable=Tunable(
            table="to_video", key={}, options=partial(tuned, "to_video"), way=ours_with
        ),
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=CLIPS, awkward=AWKWARD)
