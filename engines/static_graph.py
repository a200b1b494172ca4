"""Graphs of any size, fixed to one size.

Builders do best with one size, and a backend then needs no profile of sizes. The result is an
ordinary graph, the same for every backend: sizes written into inputs and outputs, and the window
tables, which are inputs of the any-size generator, put in as constants.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.cache import Canvas
from vr_trt.engines.onnx_file import open_onnx
from vr_trt.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from vr_trt.engines.graphs import WindowTables

LATENT = 8  # pixels of a latent pixel
RECIPE = 2  # raised when the same graph and canvas would give another result


def fix_size(path: Path, out: Path, canvas: Canvas, tables: "WindowTables") -> None:
    """Write the graph in `path`, fixed to `canvas`, to `out`; its data files keep their names.

    ModelError where a size of an input does not follow from the canvas.
    """
    import onnx

    model = open_onnx(path)
    if any(value.name.startswith("plain.") for value in model.graph.input):
        _fix_generator(model, canvas, tables)
    else:
        _fix_coder(model, canvas)
    _use_standard_attention(model)
    del model.graph.value_info[:]  # their sizes are names that no longer exist
    for value in model.graph.input:
        if any(not size.HasField("dim_value") for size in value.type.tensor_type.shape.dim):
            raise ModelError(f"{path}: the size of its input {value.name} is not known: export it")
    onnx.save(model, out)


def _use_standard_attention(model: "ModelProto") -> None:
    """Undo `export.onnx_cpu`: ONNX Runtime's own attention becomes the standard operator."""
    from onnx import helper

    for node in model.graph.node:
        if node.op_type != "MultiHeadAttention":
            continue
        heads = next(a.i for a in node.attribute if a.name == "num_heads")
        kept = [a for a in node.attribute if a.name != "num_heads"]
        del node.attribute[:]
        node.op_type, node.domain = "Attention", ""
        node.attribute.extend(kept)
        for name in ("q_num_heads", "kv_num_heads"):
            node.attribute.append(helper.make_attribute(name, heads))


def _fix_coder(model: "ModelProto", canvas: Canvas) -> None:
    known = {"h": canvas.height // LATENT, "w": canvas.width // LATENT}
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            found = _evaluated(size.dim_param, known)
            if found is not None:
                size.dim_value = found  # a one-of: the name goes


def _evaluated(text: str, known: dict[str, int]) -> int | None:
    """The value of `h` or `8*h`."""
    match = re.fullmatch(r"(?:(\d+)\*)?([hw])", text)
    return int(match[1] or 1) * known[match[2]] if match else None


def _fix_generator(model: "ModelProto", canvas: Canvas, tables: "WindowTables") -> None:
    from onnx import numpy_helper

    from vr_trt.kernels.windows import any_size_tables

    h, w = canvas.height // LATENT, canvas.width // LATENT
    arrays = any_size_tables(
        (canvas.latents, h // 2, w // 2), tables.text_tokens, tables.head_width, tables.rope
    )
    graph = model.graph
    kept = [value for value in graph.input if value.name not in arrays]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    for value in (*graph.input, *graph.output):
        _set_sizes(value, (1, _channels(value), canvas.latents, h, w))


def _channels(value: "ValueInfoProto") -> int:
    return value.type.tensor_type.shape.dim[1].dim_value


def _set_sizes(value: "ValueInfoProto", sizes: tuple[int, ...]) -> None:
    for place, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
        place.dim_value = size
