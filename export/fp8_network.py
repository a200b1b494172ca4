"""The generator in PyTorch with the arithmetic of the quantised graph: for the gate and for tests."""

import copy
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.errors import ModelError
from vr_trt.export.calibration_table import CalibrationTable
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.fp8 import quantise_weight, rounded, scale_exponent, suits

Pick = Callable[[str], bool]


def block_linears(folded: FoldedGenerator) -> dict[str, nn.Linear]:
    """The linears of the blocks by name, as `blocks.0.video.qkv`: those that may be quantised."""
    found = {f"blocks.{name}": module for name, module in folded.blocks.named_modules()}
    return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}


def input_name(linear: str, rows: int, text_tokens: int) -> str:
    """The name of a linear's input in a table: shared weights see text and video."""
    block, _, kind = linear.rsplit(".", 2)
    return f"{block}.{'text' if rows == text_tokens else 'video'}.{kind}"


class Fp8Linear(nn.Module):
    """A linear with its weight and its input rounded to E4M3, products and sums in full."""

    weight: Tensor  # [N, K] without its factors
    factors: Tensor  # [N]

    def __init__(self, linear: nn.Linear, name: str, table: CalibrationTable, tokens: int) -> None:
        super().__init__()
        quantised = quantise_weight(linear.weight)
        plain = quantised.values.float() * 2.0**quantised.exponent
        self.register_buffer("weight", plain.to(linear.weight.dtype))
        self.register_buffer("factors", quantised.factors.to(linear.weight.dtype))
        self.bias, self.name, self.table, self.tokens = linear.bias, name, table, tokens
        self.in_features = linear.in_features

    def forward(self, x: Tensor) -> Tensor:
        amax = self.table.amax[input_name(self.name, len(x), self.tokens)]
        x = rounded(x, scale_exponent(amax))
        return F.linear(x, self.weight) * self.factors + self.bias


def quantised_linears(folded: FoldedGenerator, table: CalibrationTable) -> list[str]:
    """The names of the linears that are quantised: not those that are wide or do not suit."""
    linears = block_linears(folded)
    if unknown := set(table.wide) - linears.keys():
        raise ModelError(f"the calibration table names {min(unknown)}, which is not there")
    return [name for name, x in linears.items() if suits(x.weight) and name not in table.wide]


def quantise_network(
    folded: FoldedGenerator, table: CalibrationTable, pick: Pick = lambda name: True
) -> FoldedGenerator:
    """A copy of `folded` whose linears round as the table says; only those that `pick` takes."""
    shared = {id(parameter): parameter for parameter in folded.parameters()}
    network = copy.deepcopy(folded, shared)  # new modules, the same weights
    for name in quantised_linears(folded, table):
        if pick(name):
            place, _, kind = name.rpartition(".")
            linear = folded.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            new = Fp8Linear(linear, name, table, len(folded.text))
            setattr(network.get_submodule(place), kind, new)
    return network
