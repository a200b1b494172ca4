"""The matrix products of the folded generator: in 16 bits by the library, in E4M3 by our kernel.

A linear of a block sees the tokens of the video, of the text, or, where both share its weights, of
both at once. `Product` is one of its launches with everything in its place. A table of a
calibration says which linears are E4M3 and how large their inputs get, see `export.quantise`.

Dimension key: M tokens, N output channels, K input channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vr_trt.errors import ModelError
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.kernels.fp8 import FIRST_CHIP
from vr_trt.kernels.fp8_linear import fp8_linear
from vr_trt.kernels.tuning import capability_of

if TYPE_CHECKING:
    from vr_trt.export.calibration_table import CalibrationTable

E4M3 = torch.float8_e4m3fn
BRANCHES = ("video", "text")  # whose tokens an input's scale is of, in this order
_MARK = ".input_scales"


class E4m3Linear(nn.Module):
    """What an E4M3 product needs to know of a linear."""

    weight: Tensor  # [N, K] float8_e4m3fn
    weight_scale: Tensor  # [N] fp32
    bias: Tensor  # [N]
    input_scales: Tensor  # [2] fp32, of BRANCHES; NaN for one that it never sees

    def __init__(self, weight: Tensor, weight_scale: Tensor, bias: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("bias", bias)
        self.register_buffer("input_scales", scales)


Linear = nn.Linear | E4m3Linear


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Product:
    """One launch: `rows` of x through `linear`, from and into fixed places."""

    rows: slice
    linear: Linear
    x: Tensor  # [M, K], codes if the linear is E4M3
    scale: Tensor | None  # [M] fp32 of the codes
    out: Tensor  # [M, N]

    def run(self) -> None:
        """Fill `out`."""
        if isinstance(self.linear, E4m3Linear):
            assert self.scale is not None
            weight, weight_scale = self.linear.weight, self.linear.weight_scale
            fp8_linear(self.x, weight, self.scale, weight_scale, self.linear.bias, self.out)
        else:
            torch.addmm(self.linear.bias, self.x, self.linear.weight.t(), out=self.out)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Piece:
    """Rows of an input that one launch of their producer fills."""

    rows: slice
    out: Tensor
    scale: Tensor | None


def pieces(products: Sequence[Product], wide: Tensor) -> list[Piece]:
    """What must be filled for `products`; all of their rows at once where they read `wide`."""
    if all(product.scale is None for product in products):
        first, last = products[0].rows, products[-1].rows
        rows = slice(first.start, last.stop)
        return [Piece(rows=rows, out=wide[rows], scale=None)]
    return [Piece(rows=p.rows, out=p.x, scale=p.scale) for p in products]


def row_scales(linear: Linear, video_rows: int, text_rows: int) -> Tensor | None:
    """The scale [video_rows + text_rows] of each row of an input; None for one in 16 bits."""
    if not isinstance(linear, E4m3Linear):
        return None
    counts = torch.tensor([video_rows, text_rows], device=linear.input_scales.device)
    rows = video_rows + text_rows
    return linear.input_scales.repeat_interleave(counts, output_size=rows)


def e4m3_linears(network: FoldedGenerator, state: Mapping[str, Tensor]) -> FoldedGenerator:
    """`network` with room for the E4M3 linears that `state` holds; it is changed and returned."""
    for name in [n.removesuffix(_MARK) for n in state if n.endswith(_MARK)]:
        place, _, kind = name.rpartition(".")
        parts = ("weight", "weight_scale", "bias", "input_scales")
        room = (torch.empty_like(state[f"{name}.{part}"], device="meta") for part in parts)
        setattr(network.get_submodule(place), kind, E4m3Linear(*room))
    return network


def quantised_state(folded: FoldedGenerator, table: "CalibrationTable") -> dict[str, Tensor]:
    """The tensors of `folded` with E4M3 linears as `table` says; ModelError as `quantise_network`."""
    from vr_trt.export.fp8 import quantise_weight, scale_exponent
    from vr_trt.export.fp8_network import block_linears, quantised_linears

    state, linears = dict(folded.state_dict()), block_linears(folded)
    for name in quantised_linears(folded, table):
        weight = state[f"{name}.weight"]
        small = quantise_weight(weight)
        block, _, kind = name.rsplit(".", 2)
        inputs = [f"{block}.{other}.{kind}" for other in BRANCHES]
        if name not in table.amax:
            raise ModelError(f"the calibration of {table.model} has no {name}: calibrate again")
        seen = [x for x in inputs if x in table.amax and (x == name or x not in linears)]
        scales = [
            2.0 ** scale_exponent(table.amax[x]) if x in seen else float("nan") for x in inputs
        ]
        state[f"{name}.weight"] = small.values
        state[f"{name}.weight_scale"] = small.factors * 2.0**small.exponent
        state[f"{name}.input_scales"] = torch.tensor(scales).to(weight.device)
    return state


def e4m3_network(
    folded: FoldedGenerator, table: "CalibrationTable", dtype: torch.dtype
) -> FoldedGenerator:
    """`folded` with E4M3 linears as `table` says, and all else in `dtype`; made on its device."""
    state = quantised_state(folded, table)
    for name, tensor in state.items():
        scales = name.endswith((".weight_scale", _MARK))
        state[name] = tensor if scales or tensor.dtype == E4M3 else tensor.to(dtype)
    with torch.device("meta"):
        network = FoldedGenerator(folded.config, len(folded.text))
    e4m3_linears(network, state).load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def check_device(state: Mapping[str, Tensor], device: torch.device) -> None:
    """ModelError where `state` has E4M3 linears and `device` no such products."""
    if device.type != "cuda" or not any(name.endswith(_MARK) for name in state):
        return
    chip = capability_of(device)
    if chip < FIRST_CHIP:
        raise ModelError(f"sm_{chip} has no fp8: build the generator in fp16 or bf16")
