"""RMSNorm at the generators' widths, 21 frames of 720p; the rival is PyTorch's own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case
from vr_trt.bench.roofline import Work
from vr_trt.kernels.rms_norm import EPS, rms_norm, rms_norm_reference

SIZES = {"3B 720p": (21600, 2560), "7B 1080p": (48240, 3072)}
AWKWARD = {"1 x 1": (1, 1), "33 x 129": (33, 129), "2 x 4099": (2, 4099)}
SMALL = {"5 x 37": (5, 37)}
LIMIT = 6e-3  # half a step of bf16


@dataclass(frozen=True, kw_only=True)
class Inputs:
    x: Tensor  # [N, C] bf16
    out: Tensor


def make(rows: int, columns: int) -> Callable[[str, int], Inputs]:
    """Random numbers, and the output filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        random = torch.Generator(device).manual_seed(seed)
        x = (3 * torch.randn(rows, columns, generator=random, device=device)).bfloat16()
        return Inputs(x=x, out=torch.full_like(x, torch.nan))

    return inputs


def plain(x: Tensor) -> Tensor:
    """PyTorch's own."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


def case(name: str, rows: int, columns: int, timed: bool) -> Case:
    """One size."""

    def compiled(given: Inputs) -> Callable[[], Tensor]:
        norm = torch.compile(plain, dynamic=False)
        return lambda: norm(given.x)

    return Case(
        name=f"rms_norm {name}",
        kernel="rms_norm",
        importance=4,
        work=Work(unit="copy", flops=4.0 * rows * columns, bytes=4.0 * rows * columns),
        limit=LIMIT,
        make=make(rows, columns),
        reference=lambda given: (rms_norm_reference(given.x.float()),),
        ways={
            OURS: lambda given: lambda: rms_norm(given.x, out=given.out),
            PYTORCH: lambda given: lambda: plain(given.x),
            COMPILED: compiled,
        },
        shape={"rows": rows, "columns": columns},
        timed=timed,
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        return [case(name, *size, True) for name, size in SMALL.items()]
    timed = [case(name, *size, True) for name, size in SIZES.items()]
    return [*timed, *(case(name, *size, False) for name, size in AWKWARD.items())]
