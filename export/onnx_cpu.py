"""What ONNX Runtime's CPU backend does better than the standard operators say.

Its `Attention` holds the whole score matrix, which for the VAE's frames grows with the square of
the picture: 3.5 GB at 720p. Its own `MultiHeadAttention` goes block by block, in constant memory.
`engines/static_graph.py` turns it back for builders of other backends.

Its convolutions over three axes go by way of copies; those over two run on blocks of channels, near
what the cores can do. A causal convolution that gives one frame is one over two axes, of channels
times frames: the same products, summed in another order.
"""

from typing import NamedTuple

import onnx_ir as ir

DOMAIN = "com.microsoft"
WEIGHT_AXES = 5  # of a convolution over frames, rows and columns


def attend_blockwise(model: ir.Model) -> None:
    """Replace attention of one head without a mask, [B, 1, S, D], by `MultiHeadAttention`."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Attention" or not _replaceable(node):
            continue
        model.opset_imports[DOMAIN] = 1
        axis = _axis(graph, node)
        squeezed = [
            ir.Node("", "Squeeze", [value, axis], name=f"{node.name}/Squeeze_{i}")
            for i, value in enumerate(node.inputs)
        ]
        attention = ir.Node(
            DOMAIN,
            "MultiHeadAttention",
            [each.outputs[0] for each in squeezed],
            [ir.AttrInt64("num_heads", 1), *_scale(node)],
            name=f"{node.name}/MultiHeadAttention",
        )
        restored = ir.Node(
            "", "Unsqueeze", [attention.outputs[0], axis], name=f"{node.name}/Unsqueeze"
        )
        for made in (*squeezed, attention, restored):
            made.outputs[0].name = made.name
            graph.insert_before(node, made)
        ir.convenience.replace_all_uses_with(node.outputs[0], restored.outputs[0])
        graph.remove(node, safe=True)


def _replaceable(node: ir.Node) -> bool:
    """No mask, one head, and nothing asked for but the scale."""
    q = node.inputs[0]
    one_head = q is not None and q.shape is not None and len(q.shape) == 4 and q.shape[1] == 1
    asked = {name for name, value in node.attributes.items() if value.value}
    return len(node.inputs) == 3 and one_head and asked <= {"scale"}


def _scale(node: ir.Node) -> list[ir.Attr]:
    return [node.attributes["scale"]] if "scale" in node.attributes else []


def _axis(graph: ir.Graph, node: ir.Node) -> ir.Value:
    name = f"{node.name}/axis"
    axis = ir.Value(
        name=name,
        shape=ir.Shape([1]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor([1], dtype=ir.DataType.INT64, name=name),
    )
    graph.initializers.add(axis)
    return axis


class _Causal(NamedTuple):
    """A convolution to one frame, with the padding before it."""

    pad: ir.Node
    x: ir.Value  # [1, C, T, H, W], not padded
    weight: ir.Value
    bias: ir.Value
    sizes: list[int]  # of the weight: [O, C, T, rows, columns]
    pads: list[int]  # top, left, bottom, right


def convolve_single_frames(model: ir.Model) -> None:
    """Replace convolutions of [1, C, T, H, W] to one frame by those of [1, C T, H, W].

    The padding before one, zeros along rows and columns, becomes its own.
    """
    graph = model.graph
    for node in list(graph):
        found = _single_frame(node) if node.op_type == "Conv" else None
        if found is None:
            continue
        outputs, channels, frames, rows, columns = found.sizes
        nodes = _Nodes(graph, node)
        picture = nodes.add("Shape", [found.x], start=3)
        shape = nodes.add("Concat", [nodes.constant([1, channels * frames]), picture], axis=0)
        x = nodes.add("Reshape", [found.x, shape])
        flat = nodes.constant([outputs, channels * frames, rows, columns])
        weight = nodes.add("Reshape", [found.weight, flat])
        inputs = [x, weight, found.bias]
        made = nodes.add("Conv", inputs, pads=found.pads, kernel_shape=[rows, columns])
        frame = nodes.add("Unsqueeze", [made, nodes.constant([2])])
        _take_place(graph, node, frame)
        if not found.pad.outputs[0].uses():
            graph.remove(found.pad, safe=True)


def _take_place(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Remove `node`; `value` is in every respect what its output was."""
    old = node.outputs[0]
    value.shape, value.type, name = old.shape, old.type, old.name
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name


def _single_frame(node: ir.Node) -> _Causal | None:
    """The parts of a causal convolution to one frame; None for any other."""
    padded, weight, bias = (*node.inputs, None)[:3]
    pad = padded.producer() if padded is not None else None
    if pad is None or pad.op_type != "Pad" or weight is None or bias is None:
        return None
    x, amounts = pad.inputs[0], pad.inputs[1]
    if x is None or x.shape is None or amounts is None or amounts.const_value is None:
        return None
    asked = {name: value.value for name, value in node.attributes.items()}
    plain = set(asked.get("strides", [1])) | set(asked.get("dilations", [1])) <= {1}
    if not plain or asked.get("group", 1) != 1 or any(asked.get("pads", [0])):
        return None
    sizes = [size for size in weight.shape or () if isinstance(size, int)]
    if len(sizes) != WEIGHT_AXES or x.shape[2] != sizes[2]:
        return None
    before, after = (list(map(int, half)) for half in amounts.const_value.numpy().reshape(2, -1))
    if any(before[:-2] + after[:-2]):
        return None
    return _Causal(pad, x, weight, bias, sizes, before[-2:] + after[-2:])


class _Nodes:
    """Nodes made before another one and named after it."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph, self._before, self._count = graph, before, 0

    def add(self, kind: str, inputs: list[ir.Value], **attributes: int | list[int]) -> ir.Value:
        """The output of a new node."""
        name = self._name(kind)
        kept = [
            ir.AttrInt64(key, value) if isinstance(value, int) else ir.AttrInt64s(key, value)
            for key, value in attributes.items()
        ]
        node = ir.Node("", kind, inputs, kept, name=name)
        node.outputs[0].name = name
        self._graph.insert_before(self._before, node)
        return node.outputs[0]

    def constant(self, numbers: list[int]) -> ir.Value:
        """int64 numbers as an initializer."""
        name = self._name("numbers")
        value = ir.Value(
            name=name,
            shape=ir.Shape([len(numbers)]),
            type=ir.TensorType(ir.DataType.INT64),
            const_value=ir.tensor(numbers, dtype=ir.DataType.INT64, name=name),
        )
        self._graph.initializers.add(value)
        return value

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._before.name}/single_frame/{kind}_{self._count}"
