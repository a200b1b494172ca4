"""From a PyTorch module to an ONNX graph whose every node says which layer it comes from.

Opset 23. The tracer's notes are dropped: they hold stack traces, which are longer than the graph
and name the machine that traced it.
"""

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from vr_trt.errors import VrTrtError
from vr_trt.export.onnx_tidy import tidy

OPSET = 23

Arguments = tuple[Tensor | list[Tensor], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What to trace: a module, example arguments (never read, only their shapes), and names."""

    name: str
    module: nn.Module
    arguments: Arguments
    inputs: Sequence[str]
    outputs: Sequence[str]
    dynamic: Any = None  # torch.export's dynamic shapes; None for a static graph


def trace(what: Trace) -> ir.Model:
    """Trace a module; weights stay where they are until the model is saved."""
    with quiet_tracer(), torch.no_grad():
        program = torch.onnx.export(
            what.module.eval(),
            what.arguments,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=list(what.inputs),
            output_names=list(what.outputs),
            dynamic_shapes=what.dynamic,
            optimize=False,
        )
    if program is None:
        raise VrTrtError(f"PyTorch gave no graph for {what.name}; please report this")
    model = program.model
    model.graph.name = what.name
    tidy(model)
    _name_by_layer(model.graph)
    return model


@contextmanager
def quiet_tracer() -> Iterator[None]:
    """Keep PyTorch's exporter from talking of itself."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not missed
    with warnings.catch_warnings():
        # PyTorch warns of its own use of its own deprecated tree functions.
        warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
        # Two axes of one size share one name: as they should.
        warnings.filterwarnings("ignore", message="# The axis name")
        yield


def describe(model: ir.Model, metadata: Mapping[str, str]) -> None:
    """Put `metadata` into the model's own table."""
    model.producer_name = "vr-trt"
    model.producer_version = metadata.get("version", "")
    model.metadata_props.update(metadata)


def _name_by_layer(graph: ir.Graph) -> None:
    """Name nodes and their values by layer and operator; drop the tracer's notes."""
    kept = {id(value) for value in graph.outputs}
    seen: Counter[str] = Counter()
    for node in graph:
        stem = "/".join((*layer_of(node.metadata_props), node.op_type))
        node.name = f"{stem}_{seen[stem]}" if seen[stem] else stem
        seen[stem] += 1
        node.metadata_props.clear()
        for i, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if id(value) not in kept:
                value.name = f"{node.name}:{i}" if i else node.name
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()


def layer_of(notes: Mapping[str, str]) -> list[str]:
    """The modules that a node belongs to, outermost first, by the tracer's `notes` on it."""
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    if len(scopes) < 2 or not scopes[-2]:
        return []
    # Nodes that compute sizes belong to no module, and the tracer says so at length.
    return ["sizes"] if scopes[-2].startswith("_empty") else scopes[-2].split(".")
