"""Tidy a traced graph: constants folded, nodes that do nothing dropped.

The exporter's own optimiser also matches rewriting patterns, in a time that grows with the square
of the graph: minutes become hours on the generator at full size. These passes are linear and leave
nearly the same graph.
"""

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer

FOLDED_BYTES = 1 << 20  # larger constants than this are not computed: they are weights
SHAPERS = ("Expand", "Identity", "Reshape")


def tidy(model: ir.Model) -> None:
    """Tidy `model` in place."""
    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=FOLDED_BYTES,
        output_size_limit=FOLDED_BYTES,
    )
    passes.RemoveUnusedNodesPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _drop_idle(model.graph)
    passes.RemoveUnusedNodesPass()(model)


def _drop_idle(graph: ir.Graph) -> None:
    """Drop nodes whose output is their input, and the first of two reshapes in a row."""
    kept = {id(value) for value in graph.outputs}
    for node in list(graph):
        if node.op_type == "Reshape" and (before := node.inputs[0]) is not None:
            maker = before.producer()
            if maker is not None and maker.op_type == "Reshape" and not _copies(node):
                node.replace_input_with(0, maker.inputs[0])
        if id(node.outputs[0]) not in kept and _is_idle(node):
            came = node.inputs[0]
            assert came is not None
            ir.convenience.replace_all_uses_with(node.outputs[0], came)
            graph.remove(node, safe=True)


def _copies(reshape: ir.Node) -> bool:
    """Whether the new shape takes a size from the input (a 0), which must then stay."""
    shape = reshape.inputs[1]
    constant = None if shape is None else shape.const_value
    return constant is None or bool((constant.numpy() == 0).any())


def _is_idle(node: ir.Node) -> bool:
    came, result = node.inputs[0] if node.inputs else None, node.outputs[0]
    if came is None or node.op_type not in (*SHAPERS, "Cast"):
        return False
    if node.op_type == "Identity":
        return True
    if came.shape is None or result.shape is None or came.dtype is None:
        return False
    same_type = came.dtype == result.dtype
    if node.op_type == "Cast":
        return same_type
    return same_type and came.shape.is_static() and came.shape == result.shape
