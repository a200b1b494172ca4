"""The generator's linears in E4M3 at true sizes, beside PyTorch's own products in E4M3 and in bf16.

The rivals' scales are what the library takes: one a row and one a channel, or one for the whole and
the channels' factors in a pass of their own, as a graph in fp8 has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vr_trt.bench.case import OURS, Case, Tunable, Way
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.kernels.fp8_linear import fp8_linear, fp8_linear_reference
from vr_trt.kernels.tuning import tuned

BY_ROW, WHOLE, BF16 = "PyTorch, scales by row", "PyTorch, one scale", "PyTorch in bf16"
HD = 21600 + 58  # tokens of 21 frames of 720p, and the text's
LAYERS: dict[str, tuple[int, int, int, int]] = {  # rows, outputs, inputs and importance
    "3B mlp_in 720p": (HD, 13824, 2560, 0),
    "3B qkv 720p": (HD, 7680, 2560, 2),
    "3B mlp_out 720p": (HD, 2560, 6912, 1),
    "7B mlp_in 720p": (HD, 12288, 3072, 2),
}
AWKWARD = {"1 x 16 x 16": (1, 16, 16), "131 x 272 x 48": (131, 272, 48)}
LIMIT = 8e-3  # a step of bf16


@dataclass(frozen=True, kw_only=True)
class Inputs:
    x: Tensor  # [M, K] codes
    weight: Tensor  # [N, K]
    x_scale: Tensor  # [M]
    weight_scale: Tensor  # [N]
    bias: Tensor  # [N] bf16

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.x, self.weight, self.x_scale, self.weight_scale, self.bias


def make(rows: int, outputs: int, inputs: int) -> Callable[[str, int], Inputs]:
    """Random codes; powers of two as scales, one for all rows but the text's."""

    def made(device: str, seed: int) -> Inputs:
        random = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, device=device)

        channels = torch.randint(-9, -6, (outputs,), generator=random, device=device)
        scale = torch.full((rows,), 2.0**-6, device=device)
        scale[-58:] = 2.0**-5
        codes, weight = (
            (64 * normal(n, inputs)).clamp(-448, 448).to(torch.float8_e4m3fn)
            for n in (rows, outputs)
        )
        return Inputs(
            x=codes, weight=weight, x_scale=scale, weight_scale=torch.exp2(channels.float()),
            bias=normal(outputs).bfloat16(),
        )  # fmt: skip

    return made


def ours(given: Inputs, sizes: Mapping[str, int] | None = None) -> Callable[[], Tensor]:
    """Our kernel."""
    out = given.bias.new_full((len(given.x), len(given.weight)), torch.nan)
    return lambda: fp8_linear(*given.all, out, sizes)


def by_row(given: Inputs) -> Callable[[], Tensor]:
    """The library's product with a scale for each row and channel."""
    x, weight, x_scale, weight_scale, bias = given.all
    return lambda: torch._scaled_mm(
        x, weight.t(), x_scale[:, None], weight_scale[None], bias, out_dtype=torch.bfloat16
    )


def whole(given: Inputs) -> Callable[[], Tensor]:
    """The library's product with one scale; rows, channels and bias in passes of their own."""
    x, weight, x_scale, weight_scale, bias = given.all
    one, least = torch.ones((), device=x.device), 2.0**-9
    factors, rows = (weight_scale / least).bfloat16(), (x_scale * least).bfloat16()[:, None]

    def product() -> Tensor:
        y = torch._scaled_mm(x, weight.t(), one, one, out_dtype=torch.bfloat16)
        return (y * rows).mul_(factors).add_(bias)

    return product


def in_bf16(given: Inputs) -> Callable[[], Tensor]:
    """The same numbers in bf16: what fp8 is to be faster than."""
    x = (given.x.float() * given.x_scale[:, None]).bfloat16()
    weight = (given.weight.float() * given.weight_scale[:, None]).bfloat16()
    return without_gradients(lambda: torch.addmm(given.bias, x, weight.t()))


def reference(given: Inputs) -> tuple[Tensor]:
    """In fp32."""
    *codes, bias = given.all
    x, weight, x_scale, weight_scale = codes
    return (fp8_linear_reference(x, weight, x_scale, weight_scale, bias.float()),)


def case(name: str, size: tuple[int, int, int], importance: int, timed: bool) -> Case:
    """One product."""
    rows, outputs, inputs = size
    moved = (rows + outputs) * inputs + 2.0 * rows * outputs
    ways: dict[str, Way] = {OURS: ours}
    if timed:
        ways |= {BY_ROW: by_row, WHOLE: whole, BF16: in_bf16}
    return Case(
        name=f"fp8_linear {name}",
        kernel="fp8_linear",
        importance=importance,
        work=Work(unit="fp8", flops=2.0 * rows * outputs * inputs, bytes=moved),
        limit=LIMIT,
        make=make(*size),
        reference=reference,
        ways=ways,
        shape={"rows": rows, "outputs": outputs, "inputs": inputs},
        timed=timed,
        tunable=Tunable(
            table="fp8_linear",
            key={},
            options=partial(tuned, "fp8_linear"),
            way=lambda options: lambda given: ours(given, options),
        ),
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        return [case("5 x 48 x 32", (5, 48, 32), 0, True)]
    made = [case(name, size[:3], size[3], True) for name, size in LAYERS.items()]
    return [*made, *(case(name, size, 0, False) for name, size in AWKWARD.items())]
