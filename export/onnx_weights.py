"""Save graphs whose weights lie in shared files beside them, each tensor once.

The stages of one network have most weights in common (start and step of the VAE have nearly all):
tensors of equal bytes are stored once per data file. Weights are written one at a time.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import onnx_ir as ir

ALIGNMENT = 4096  # so that a runtime can map the file
PACKED = 64  # where small size counts for more
# Stored in full even where others are halved: rounding the networks' ends shifts every latent.
ENDS = ("conv_in.", "conv_out.", "patch_in.", "patch_out.")
INLINE_BYTES = 1024  # smaller tensors stay in the graph, where people can read them


@dataclass(slots=True)
class SharedWeights:
    """An external-data file under construction; use as a context manager."""

    path: Path
    half: bool = False  # store large fp32 weights in fp16, with a cast in the graph, and pack them
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # hash -> offset, length
    _file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell() if self._file else 0

    def save(self, model: ir.Model, path: Path) -> None:
        """Write `model` to `path`, in the same folder, its large weights to this file."""
        for name, value in list(model.graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= INLINE_BYTES:
                continue
            end = any(part in name for part in ENDS)
            if self.half and tensor.dtype == ir.DataType.FLOAT and not end:
                value = _stored_in_half(model.graph, value)
                tensor = value.const_value
                assert tensor is not None
            value.const_value = self._external(value.name or name, tensor)
        ir.save(model, path)

    def _external(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        assert self._file is not None
        data = tensor.tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._file.write(bytes(-self._file.tell() % (PACKED if self.half else ALIGNMENT)))
            self._places[key] = self._file.tell(), len(data)
            self._file.write(data)
        offset, length = self._places[key]
        return ir.ExternalTensor(
            self.path.name,
            offset,
            length,
            ir.DataType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self.path.parent,
        )


def _stored_in_half(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Replace an fp32 initializer by an fp16 one and a cast; a runtime folds the cast at load."""
    assert value.const_value is not None and value.name is not None
    name = value.name
    array = value.const_value.numpy().astype(np.float16)
    half = ir.Value(
        name=f"{name}.half",
        type=ir.TensorType(ir.DataType.FLOAT16),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, name=f"{name}.half"),
    )
    cast = ir.Node("", "Cast", [half], [ir.AttrInt64("to", ir.DataType.FLOAT)], name=f"{name}/Cast")
    full = cast.outputs[0]
    full.type, full.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, full)
    del graph.initializers[name]
    full.name = name
    graph.initializers.add(half)
    graph.insert_before(graph[0], cast)
    return half
