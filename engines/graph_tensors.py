"""The tensors of the network that a graph was traced from, by their names in PyTorch.

The tracer keeps an initializer's name, but not where it computes with it first: a linear's weight
comes transposed, and a kernel of one frame without its frames. Such a weight is found at its layer's
product, whose node is named by the layer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.e4m3_graph import CODES, e4m3_tensors
from vr_trt.engines.onnx_file import open_onnx
from vr_trt.errors import ModelError

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto, NodeProto, TensorProto
    from torch import Tensor

_STORED_IN_HALF = ".half"
_PRODUCTS = ("Conv", "MatMul")


class GraphTensors:
    """The tensors of the graph in `path` whose names begin with `network` and a dot."""

    def __init__(self, path: Path, network: str) -> None:
        self._folder, self._network = path.parent, network
        self._model: ModelProto = open_onnx(path)

    def epsilon(self) -> float | None:
        """That of the graph's group norms; None where it has none. ModelError if they differ."""
        found = {
            attribute.f
            for node in self._model.graph.node
            if node.op_type == "GroupNormalization"
            for attribute in node.attribute
            if attribute.name == "epsilon"
        }
        if len(found) > 1:
            raise ModelError(f"{self._model.graph.name} has norms of {len(found)} epsilons")
        return next(iter(found), None)

    def read(self, dtype: "torch.dtype") -> "Iterator[tuple[str, Tensor]]":
        """Name and tensor in `dtype`; large ones are mapped, and read when they are used."""
        named = {tensor.name: tensor for tensor in self._model.graph.initializer}
        for name, tensor in named.items():
            if name.startswith(f"{self._network}.") and CODES not in name:
                yield self._short(name), self._tensor(tensor).to(dtype)
        for node in self._model.graph.node:
            folded = named.get(node.input[1]) if node.op_type in _PRODUCTS else None
            if folded is not None and not folded.name.startswith(f"{self._network}."):
                layer = node.name.rpartition("/")[0].replace("/", ".")
                if layer.startswith(f"{self._network}."):
                    yield self._short(f"{layer}.weight"), self._unfolded(node, folded).to(dtype)

    def e4m3(self, text_tokens: int) -> "dict[str, Tensor]":
        """The tensors of the E4M3 linears of a generator that was quantised."""
        return e4m3_tensors(self._model, text_tokens, self._tensor)

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{self._network}.").removesuffix(_STORED_IN_HALF)

    def _unfolded(self, node: "NodeProto", tensor: "TensorProto") -> "Tensor":
        """The weight as the layer has it."""
        value = self._tensor(tensor)
        return value.unsqueeze(2) if node.op_type == "Conv" else value.t().contiguous()

    def _tensor(self, tensor: "TensorProto") -> "Tensor":
        """An initializer in PyTorch, which knows bf16."""
        import numpy as np
        import torch
        from onnx import TensorProto, numpy_helper

        kinds: dict[int, tuple[type, torch.dtype]] = {
            TensorProto.FLOAT: (np.float32, torch.float32),
            TensorProto.FLOAT16: (np.float16, torch.float16),
            TensorProto.BFLOAT16: (np.int16, torch.bfloat16),  # its bits: numpy has no such numbers
            TensorProto.FLOAT8E4M3FN: (np.uint8, torch.float8_e4m3fn),
        }
        if tensor.data_type not in kinds:
            raise ModelError(f"{tensor.name} is of a kind that the triton backend does not run")
        stored, kind = kinds[tensor.data_type]
        if not tensor.external_data:
            inner: np.ndarray = numpy_helper.to_array(tensor).view(stored).copy()
            return torch.from_numpy(inner).view(kind)
        place = {entry.key: entry.value for entry in tensor.external_data}
        offset, sizes = int(place.get("offset", 0)), tuple(tensor.dims)
        array = np.memmap(self._folder / place["location"], stored, "c", offset, sizes)
        return torch.from_numpy(array).view(kind)
