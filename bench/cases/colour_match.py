"""The colours' scales and shifts by AdaIN and in CIELAB; four frames of fp16."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case
from vr_trt.bench.roofline import Work
from vr_trt.kernels.colour_match import Axes, ColourMatch, match_reference

SIZES = {"1080p": (1080, 1920)}
AWKWARD = {"7 x 300": (7, 300)}
FRAMES = 4
LIMIT = 1e-3  # moments in fp32 against fp64
BOTH: tuple[Axes, ...] = ("adain", "lab")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    axes: Axes
    restored: Tensor  # [3, F, H, W] fp16
    reference: Tensor


def make(axes: Axes, size: tuple[int, int]) -> Callable[[str, int], Inputs]:
    """Random pictures whose means and deviations differ."""

    def inputs(device: str, seed: int) -> Inputs:
        random = torch.Generator(device).manual_seed(seed)

        def picture(spread: float, middle: float) -> Tensor:
            noise = torch.rand(3, FRAMES, *size, generator=random, device=device)
            return ((2 * noise - 1) * spread + middle).half()

        return Inputs(axes=axes, restored=picture(0.5, 0.2), reference=picture(0.9, 0.0))

    return inputs


def ours(given: Inputs) -> Callable[[], Tensor]:
    """Our kernels."""
    height, width = given.restored.shape[2:]
    match = ColourMatch(given.axes, height, width, given.restored.device)
    out = torch.full((FRAMES, 3, 2), torch.nan, device=given.restored.device)
    room = out.new_full((2, FRAMES, match.tiles, 3, 3), torch.nan)
    return lambda: match(given.restored, given.reference, out, room)


def plain(given: Inputs) -> Callable[[], Tensor]:
    """PyTorch in fp32, as ours is, operator by operator."""
    return lambda: match_reference(given.restored, given.reference, given.axes, torch.float32)


def compiled(given: Inputs) -> Callable[[], Tensor]:
    """The same by torch.compile."""
    return torch.compile(plain(given), dynamic=False)


def case(name: str, axes: Axes, size: tuple[int, int], timed: bool) -> Case:
    """Both pictures read once."""
    samples = 2.0 * 3 * FRAMES * size[0] * size[1]
    return Case(
        name=f"colour_match {axes} {name}",
        kernel="colour_match",
        importance=4,
        work=Work(unit="copy", flops=samples * (5 if axes == "adain" else 40), bytes=2 * samples),
        limit=LIMIT,
        make=make(axes, size),
        reference=lambda given: (match_reference(given.restored, given.reference, axes),),
        ways={OURS: ours, PYTORCH: plain, COMPILED: compiled} if timed else {OURS: ours},
        shape={"frames": FRAMES, "rows": size[0], "columns": size[1]},
        timed=timed,
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        return [case("5 x 9", axes, (5, 9), True) for axes in BOTH]
    made = [case(name, axes, size, True) for axes in BOTH for name, size in SIZES.items()]
    return made + [case(name, axes, size, False) for axes in BOTH for name, size in AWKWARD.items()]
