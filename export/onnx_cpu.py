"""What ONNX Runtime's CPU backend does better than the standard operators say.

Its `Attention` holds the whole score matrix, which for the VAE's frames grows with the square of
the picture: 3.5 GB at 720p. Its own `MultiHeadAttention` goes block by block, in constant memory.
`engines/static_graph.py` turns it back for builders of other backends.
"""

import onnx_ir as ir

DOMAIN = "com.microsoft"


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
