"""The E4M3 pass: a generator's graph with Q/DQ around the linears of its blocks.

    x ─ QuantizeLinear ─ DequantizeLinear ─┐
    weight (E4M3) ───── DequantizeLinear ─ Gemm ─ Mul (factors) ─ Add (bias)

That is what TensorRT takes for a product in E4M3: the two scales become one number inside of it, and
what is left of the chain one kernel after it. Patch embedding, output head, the text's entry and
attention stay as they are, and so do the linears that the calibration found too sensitive. Weights
are converted when they are written, one at a time: memory is that of the largest.

Dimension key: N output channels, K input channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from vr_trt.errors import ModelError
from vr_trt.export.calibration_table import REMEDY, CalibrationTable
from vr_trt.export.fp8 import quantise_weight, scale_exponent, suits, weight_scales
from vr_trt.export.fp8_network import input_name

E4M3 = ir.DataType.FLOAT8E4M3FN
_LINEAR = "folded.blocks."  # what weights of blocks are called in a graph
_TEXT = "folded.text"  # [L, C]
_PATCH_IN = "folded.patch_in.weight"


def quantise(model: ir.Model, table: CalibrationTable) -> int:
    """Quantise a generator's graph in place; the number of products that are E4M3 now.

    ModelError if the table lacks an input of the graph or names a linear that it does not have, or
    if the graph has no linears to quantise.
    """
    graph = model.graph
    if _TEXT not in graph.initializers:
        raise ModelError(f"{graph.name} is no generator's graph: it has no {_TEXT}")
    if unknown := set(table.wide) - {_linear_of(node) for node in graph}:
        raise ModelError(f"the calibration table names {min(unknown)}, which {graph.name} lacks")
    _check_tokens(graph)
    made = _Pass(graph, table, int(graph.initializers[_TEXT].shape[0]))  # type: ignore[index,arg-type]
    count = sum(made.linear(node) for node in list(graph))
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]  # the wide weights
    if not count and not table.wide:
        raise ModelError(f"{graph.name} has no linears of blocks that E4M3 suits: keep it wide")
    return count


@dataclass(slots=True)
class _Pass:
    """One graph on its way; scales and weights are shared by those who need the same."""

    graph: ir.Graph
    table: CalibrationTable
    text_tokens: int
    weights: dict[str, tuple[ir.Value, ir.Value]] = field(default_factory=dict)  # weight, factors

    def linear(self, node: ir.Node) -> bool:
        """Quantise a node, if it is a linear that should be."""
        name = _linear_of(node)
        if name is None or name in self.table.wide:
            return False
        x, weight, bias = node.inputs[:3]
        assert x is not None and weight is not None and bias is not None
        if not suits(_tensor(weight)):
            return False
        rows = node.outputs[0].shape[0] if node.outputs[0].shape is not None else None
        exponent = self._input_exponent(name, rows if isinstance(rows, int) else 0)
        stem = node.name.replace("/Gemm", "") if node.name else name
        if weight.name not in self.weights:
            self.weights[weight.name or ""] = self._weight(node, weight)
        wide, factors = self.weights[weight.name or ""]
        scale = self._scale(exponent, x.dtype)
        narrow = _before(node, "QuantizeLinear", [x, scale], x, E4M3, stem)
        again = _before(node, "DequantizeLinear", [narrow, scale], x, x.dtype, f"{stem}/input")
        out = node.outputs[0]
        product = _before(node, "Gemm", [again, wide], out, out.dtype, stem, transB=1)
        scaled = _before(node, "Mul", [product, factors], out, out.dtype, f"{stem}/factors")
        biased = _before(node, "Add", [scaled, bias], out, out.dtype, f"{stem}/bias")
        ir.convenience.replace_all_uses_with(out, biased)
        self.graph.remove(node, safe=True)
        return True

    def _input_exponent(self, linear: str, rows: int) -> int:
        name = input_name(linear, rows, self.text_tokens)
        if name not in self.table.amax:
            raise ModelError(f"the calibration of {self.table.model} has no {name}: {REMEDY}")
        return scale_exponent(self.table.amax[name])

    def _scale(self, exponent: int, dtype: ir.DataType | None) -> ir.Value:
        """The scale 2**exponent, once a graph."""
        assert dtype is not None
        array = np.array(2.0**exponent).astype(dtype.numpy())
        return self._constant(f"scale.2^{exponent}", ir.Tensor(array, dtype=dtype))

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self.graph.initializers:
            value = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.shape.numpy()),
                const_value=tensor,
            )
            self.graph.initializers.add(value)
        return self.graph.initializers[name]

    def _weight(self, node: ir.Node, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A weight's E4M3 values made wide again, and the factors of its channels."""
        source, dtype = weight.const_value, weight.dtype
        assert source is not None and dtype is not None and weight.name is not None
        exponent, factors = weight_scales(_tensor(weight))
        shape = ir.Shape(source.shape.numpy())
        name = f"{weight.name}.e4m3"
        values = self._constant(
            name, ir.LazyTensor(lambda: _values(weight), dtype=E4M3, shape=shape, name=name)
        )
        array = factors.numpy().astype(dtype.numpy())
        kept = self._constant(f"{weight.name}.factors", ir.Tensor(array, dtype=dtype))
        stem = weight.name.removesuffix(".weight").replace(".", "/")
        inputs = [values, self._scale(exponent, dtype)]
        wide = _before(node, "DequantizeLinear", inputs, weight, dtype, f"{stem}/weight")
        return wide, kept


def _check_tokens(graph: ir.Graph) -> None:
    """ModelError if video and text have as many tokens: their inputs could not be told apart."""
    tokens = graph.initializers[_TEXT].shape[0]  # type: ignore[index]
    for node in graph:
        if [value.name for value in node.inputs[1:2] if value] == [_PATCH_IN]:
            rows = node.outputs[0].shape
            if rows is not None and rows[0] == tokens:
                raise ModelError(
                    f"{graph.name} has {tokens} tokens of video, as many as the text has: choose "
                    "another size for fp8"
                )


def _linear_of(node: ir.Node) -> str | None:
    """The linear of a block that `node` is, as `blocks.0.video.qkv`; None if it is none."""
    if node.op_type != "Gemm" or len(node.inputs) != 3 or node.inputs[1] is None:
        return None
    name = node.inputs[1].name or ""
    if not name.startswith(_LINEAR) or not name.endswith(".weight"):
        return None
    return name.removeprefix("folded.").removesuffix(".weight")


def _before(
    node: ir.Node, op: str, inputs: Sequence[ir.Value], like: ir.Value,
    dtype: ir.DataType | None, stem: str, **attributes: int,
) -> ir.Value:  # fmt: skip
    """Put an operator before `node`; its output has the sizes of `like`."""
    assert dtype is not None
    if op == "QuantizeLinear":
        attributes["output_dtype"] = int(dtype)
    new = ir.Node("", op, inputs, ir.convenience.convert_attributes(attributes))
    new.name = f"{stem}/{op}"
    out = new.outputs[0]
    out.name, out.type, out.shape = new.name, ir.TensorType(dtype), like.shape
    node.graph.insert_before(node, new)  # type: ignore[union-attr]
    return out


def _values(weight: ir.Value) -> ir.TensorProtocol:
    """A weight in E4M3, now."""
    values = quantise_weight(_tensor(weight)).values.view(torch.uint8).numpy()
    return ir.Tensor(values.view(E4M3.numpy()), dtype=E4M3)


def _tensor(weight: ir.Value) -> Tensor:
    """A weight as a tensor of PyTorch; a file that it was read from is not kept mapped."""
    source = weight.const_value
    assert source is not None
    array = np.array(source.numpy())
    if isinstance(source, ir.ExternalTensor):
        source.release()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
