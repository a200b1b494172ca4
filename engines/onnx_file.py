"""What a graph's file says without its weights: inputs, sizes, and the data files beside it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.spec import Sizes
from vr_trt.errors import ModelError
from vr_trt.export.weights_hashes import hash_once

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
    """One stage's graph on disk."""

    path: Path
    sha256: str  # of the graph and of its data
    inputs: dict[str, Sizes | None]  # None where a size is not fixed
    weight_bytes: int


def read_onnx(path: Path) -> OnnxFile:
    """Look at the graph in `path` and hash it with its data.

    ModelError if it is no graph or if a data file is missing or too short.
    """
    model = open_onnx(path)
    graph = model.graph
    data = _data_files(path, graph)
    whole = hashlib.sha256()
    for file in (path, *data):
        whole.update(f"{file.name if file != path else ''} {hash_once(file)}\n".encode())
    weights = {tensor.name for tensor in graph.initializer}
    return OnnxFile(
        path=path,
        sha256=whole.hexdigest(),
        inputs={v.name: _sizes(v) for v in graph.input if v.name not in weights},
        weight_bytes=sum(
            _bytes(list(tensor.dims), tensor.data_type) for tensor in graph.initializer
        ),
    )


def data_files(path: Path) -> list[Path]:
    """The files beside the graph in `path` that hold its weights; ModelError if one is missing."""
    return _data_files(path, open_onnx(path).graph)


def open_onnx(path: Path) -> "ModelProto":
    """The graph in `path` without its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(f"{path} is not a graph ({error}): export the model again") from None


def _data_files(path: Path, graph: "GraphProto") -> list[Path]:
    needed: dict[str, int] = {}
    for entries in _external(graph):
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        needed[entries["location"]] = max(end, needed.get(entries["location"], 0))
    for name, end in needed.items():
        file = path.parent / name
        if Path(name).name != name:
            raise ModelError(f"{path} keeps weights in {name}, outside its folder: export it again")
        if not file.is_file():
            raise ModelError(f"{file}, the weights of {path.name}, is missing: export it again")
        if file.stat().st_size < end:
            raise ModelError(f"{file}, the weights of {path.name}, is cut short: export it again")
    return [path.parent / name for name in sorted(needed)]


def _external(graph: "GraphProto") -> Iterator[dict[str, str]]:
    for tensor in graph.initializer:
        if tensor.external_data:
            yield {entry.key: entry.value for entry in tensor.external_data}


def _bytes(sizes: list[int], kind: int) -> int:
    from onnx import helper

    return reduce(mul, sizes, helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _sizes(value: "ValueInfoProto") -> Sizes | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
        return None
    return tuple(d.dim_value for d in kind.shape.dim)
