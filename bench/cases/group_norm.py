"""Group norm of single frames with SiLU, in bf16: all of it, and what is left where the convolution
before it has already left the moments. The rival is PyTorch's, in both layouts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.bench.case import COMPILED, OURS, Case, sized
from vr_trt.bench.cases.networks import half, normal, poisoned
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.kernels.group_norm import (
    EPS,
    Norm,
    activate,
    activate_reference,
    moments,
    scale_shift,
    scale_shift_reference,
)

Size = tuple[int, int, int, int]  # frames, rows, columns, channels
SIZES: dict[str, Size] = {
    "128 720p": (2, 720, 1280, 128),
    "128 1080p": (2, 1088, 1920, 128),
    "512 quarter of 720p": (2, 180, 320, 512),
}
AWKWARD: dict[str, Size] = {"one pixel": (1, 1, 1, 64), "odd": (3, 67, 129, 96)}
SMALL: dict[str, Size] = {"small": (2, 3, 5, 64)}
GROUPS = 32
LIMIT = 5e-3  # a step of bf16


@dataclass(frozen=True, kw_only=True)
class Inputs:
    x: Tensor  # [F, H, W, C] bf16
    norm: Norm
    out: Tensor


def make(size: Size) -> Callable[[str, int], Inputs]:
    """Random pictures whose mean is not zero, and the output filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        x = (normal(device, seed, *size) + 0.7).to(half(device))
        weight, bias = (normal(device, seed + i, size[3]).float() for i in (1, 2))
        norm = Norm(weight=1 + 0.1 * weight, bias=0.1 * bias, groups=GROUPS)
        return Inputs(x=x, norm=norm, out=torch.full_like(x, torch.nan))

    return inputs


def reference(given: Inputs) -> Sequence[Tensor]:
    """In fp32."""
    wide = given.x.float()
    return (activate_reference(wide, scale_shift_reference(wide, given.norm)),)


def ours(given: Inputs) -> Callable[[], Tensor]:
    """Moments, scale and shift, application."""
    out = poisoned(given.out)
    return lambda: activate(given.x, scale_shift(moments(given.x), given.norm), out)


def ours_given_moments(given: Inputs) -> Callable[[], Tensor]:
    """What is left after a convolution of ours."""
    known, out = moments(given.x), poisoned(given.out)
    return lambda: activate(given.x, scale_shift(known, given.norm), out)


def plain(x: Tensor, norm: Norm) -> Tensor:
    """PyTorch's, [F, C, H, W]."""
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return F.silu(F.group_norm(x, norm.groups, weight, bias, EPS))


def pytorch(
    layout: torch.memory_format, *, compiles: bool = False
) -> Callable[[Inputs], Callable[[], Tensor]]:
    """A way in one layout."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        x = given.x.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        run = torch.compile(plain, dynamic=False) if compiles else plain
        return without_gradients(lambda: run(x, given.norm).permute(0, 2, 3, 1))

    return way


def case(label: str, size: Size, timed: bool) -> Case:
    """One size. The least is to read once, though none can that does not know the moments."""
    elements = float(size[0] * size[1] * size[2] * size[3])
    return Case(
        name=f"group_norm {label}",
        kernel="group_norm",
        importance=2,
        work=Work(unit="copy", flops=12 * elements, bytes=4 * elements),
        limit=LIMIT,
        make=make(size),
        reference=reference,
        ways={
            OURS: ours,
            f"{OURS}, moments known": ours_given_moments,
            "PyTorch channels last": pytorch(torch.channels_last),
            "PyTorch": pytorch(torch.contiguous_format),
            COMPILED: pytorch(torch.channels_last, compiles=True),
        },
        shape=dict(zip(("frames", "rows", "columns", "channels"), size, strict=True)),
        timed=timed,
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=SIZES, awkward=AWKWARD)
