"""The E4M3 linears of a quantised generator's graph, as the triton backend's products want them.

The reverse of `export.quantise`: weights as they are stored, their scales by channel, and the scales
of the inputs, of which a linear that video and text share has two.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vr_trt.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto
    from torch import Tensor

CODES, FACTORS = ".weight.e4m3", ".weight.factors"
_NETWORK = "folded."
_STORED_IN_HALF = ".half"


def e4m3_tensors(
    model: "ModelProto", text_tokens: int, read: "Callable[[TensorProto], Tensor]"
) -> "dict[str, Tensor]":
    """`weight`, `weight_scale` and `input_scales` of every E4M3 linear, by its name in PyTorch.

    ModelError for a graph whose tokens of video and text cannot be told apart.
    """
    import torch

    stored = {t.name.removesuffix(_STORED_IN_HALF): t for t in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    rows = _rows(model)
    found: dict[str, Tensor] = {}
    for node in model.graph.node:
        linear = _linear_of(node, makers)
        if linear is None:
            continue
        name = linear.removeprefix(_NETWORK)
        if f"{name}.weight" not in found:
            scale = read(stored[makers[node.input[1]].input[1]]).float()
            found[f"{name}.weight"] = read(stored[linear + CODES])
            found[f"{name}.weight_scale"] = read(stored[linear + FACTORS]).float() * scale
            found[f"{name}.input_scales"] = torch.full((2,), torch.nan)
        if rows.get(node.output[0], 0) <= 0:
            raise ModelError(f"the graph does not say how many tokens {name} sees: export it again")
        of_text = int(rows[node.output[0]] == text_tokens)
        input_scale = read(stored[makers[node.input[0]].input[1]]).float()
        found[f"{name}.input_scales"][of_text] = input_scale
    return found


def _linear_of(node: "NodeProto", makers: "Mapping[str, NodeProto]") -> str | None:
    """The linear that `node` is the product of, as `folded.blocks.0.video.qkv`; None if of none."""
    if node.op_type != "Gemm" or node.input[1] not in makers:
        return None
    weight = makers[node.input[1]]
    if weight.op_type != "DequantizeLinear" or not weight.input[0].endswith(CODES):
        return None
    return weight.input[0].removesuffix(CODES)


def _rows(model: "ModelProto") -> dict[str, int]:
    """How many rows each value of the graph has, where that is known."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model) if not model.graph.value_info else model
    return {
        value.name: value.type.tensor_type.shape.dim[0].dim_value
        for value in inferred.graph.value_info
        if value.type.tensor_type.shape.dim
    }
