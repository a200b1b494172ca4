"""The generator's kernels between two linears, 21 frames in bf16; the rival is PyTorch's own.

All are bound by memory: what counts is how near they come to a copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.kernels.activation import Activation, activate, activation_reference
from vr_trt.kernels.residual_norm import residual_norm, residual_norm_reference
from vr_trt.kernels.rms_norm import EPS, rms_norm, rms_norm_reference

# Rows and columns: tokens and width, or the MLP's.
NORMS = {"3B 720p": (21600, 2560)}
MLPS: dict[str, tuple[Activation, int, int]] = {
    "swiglu 3B 720p": ("swiglu", 21600, 2 * 6912),
    "gelu 7B 720p": ("gelu", 21600, 12288),
}
AWKWARD = {"1 x 1": (1, 1), "33 x 129": (33, 129)}
LIMIT = 6e-3  # half a step of bf16
IMPORTANCE = 3


@dataclass(frozen=True, kw_only=True)
class Inputs:
    x: Tensor  # [N, C] bf16
    y: Tensor  # [N, C]
    out: Tensor  # of the result's size


Function = Callable[[Inputs], Sequence[Tensor]]


def make(rows: int, columns: int, results: int) -> Callable[[str, int], Inputs]:
    """Random numbers, and the output [N, `results`] filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        random = torch.Generator(device).manual_seed(seed)

        def normal() -> Tensor:
            return (3 * torch.randn(rows, columns, generator=random, device=device)).bfloat16()

        x = normal()
        return Inputs(x=x, y=normal(), out=x.new_full((rows, results), torch.nan))

    return inputs


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel at any size, ours and PyTorch's."""

    name: str
    ours: Function
    plain: Function
    reference: Function  # in fp32
    moved: float  # read and written, in sizes of x


RMS_NORM = Kernel(
    name="rms_norm",
    ours=lambda given: (rms_norm(given.x, out=given.out),),
    plain=lambda given: (F.rms_norm(given.x, given.x.shape[-1:], eps=EPS),),
    reference=lambda given: (rms_norm_reference(given.x.float()),),
    moved=2,
)


def _added(given: Inputs) -> Sequence[Tensor]:
    total = given.x + given.y
    return total, F.rms_norm(total, total.shape[-1:], eps=EPS)


def _added_by_ours(given: Inputs) -> Sequence[Tensor]:
    return given.x, residual_norm(given.x, given.y, out=given.out)


# Ours is in place: x grows from call to call, so the error is that of the first, on a copy of x.
RESIDUAL_NORM = Kernel(
    name="residual_norm",
    ours=_added_by_ours,
    plain=_added,
    reference=lambda given: residual_norm_reference(given.x.float(), given.y.float()),
    moved=4,
)


def activation_of(kind: Activation) -> Kernel:
    """SwiGLU or GELU."""

    def plain(given: Inputs) -> Sequence[Tensor]:
        if kind == "gelu":
            return (F.gelu(given.x, approximate="tanh"),)
        gate, value = given.x.chunk(2, -1)
        return (F.silu(gate) * value,)

    return Kernel(
        name="activation",
        ours=lambda given: (activate(given.x, kind, out=given.out),),
        plain=plain,
        reference=lambda given: (activation_reference(given.x.float(), kind),),
        moved=1.5 if kind == "swiglu" else 2,
    )


def case(label: str, kernel: Kernel, size: tuple[int, int], results: int, timed: bool) -> Case:
    """One kernel at one size; `results` are the columns of what it gives."""
    rows, columns = size

    def ours(given: Inputs) -> Callable[[], Sequence[Tensor]]:
        own = replace(given, x=given.x.clone())
        return lambda: kernel.ours(own)

    def compiled(given: Inputs) -> Callable[[], Sequence[Tensor]]:
        fused = torch.compile(kernel.plain, dynamic=False)
        return without_gradients(lambda: fused(given))

    return Case(
        name=f"{kernel.name} {label}",
        kernel=kernel.name,
        importance=IMPORTANCE,
        work=Work(unit="copy", flops=6.0 * rows * columns, bytes=2 * kernel.moved * rows * columns),
        limit=LIMIT,
        make=make(rows, columns, results),
        reference=kernel.reference,
        ways={
            OURS: ours,
            PYTORCH: lambda given: without_gradients(lambda: kernel.plain(given)),
            COMPILED: compiled,
        },
        shape={"rows": rows, "columns": columns},
        timed=timed,
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        norms = [case("5 x 37", kernel, (5, 37), 37, True) for kernel in (RMS_NORM, RESIDUAL_NORM)]
        return [*norms, case("swiglu", activation_of("swiglu"), (5, 38), 19, True)]
    made = []
    for kernel in (RMS_NORM, RESIDUAL_NORM):
        made += [case(label, kernel, size, size[1], True) for label, size in NORMS.items()]
        made += [case(label, kernel, size, size[1], False) for label, size in AWKWARD.items()]
    for label, (kind, *size) in MLPS.items():
        results = size[1] // 2 if kind == "swiglu" else size[1]
        made.append(case(label, activation_of(kind), (size[0], size[1]), results, True))
    return [*made, case("swiglu 3 x 202", activation_of("swiglu"), (3, 202), 101, False)]
