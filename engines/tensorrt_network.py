"""What TensorRT and TensorRT-RTX have in common: the log, reading a graph, fixing its shapes."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.spec import Sizes
from vr_trt.errors import ModelError

if TYPE_CHECKING:
    import tensorrt as trt

# What the library prints of a plan's memory, and the manifest's names of it.
_MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")
_FACTS = {"Activation": "device_bytes", "Weights": "weight_bytes"}
_LONGEST = 400  # letters of the library's own words in a message


def open_log(library: Any) -> Any:
    """An ILogger of `library` that prints to standard error and keeps errors, each as one line.

    `memory` is what it said of the plan, in bytes: `device_bytes` of activations, `weight_bytes`.
    """

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []
            self.memory: dict[str, int] = {}

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.errors.append(" ".join(message.split())[:_LONGEST])
            if said := _MEMORY.search(message):
                self.memory[_FACTS[said[1]]] = int(said[2])
            if severity <= library.ILogger.Severity.INFO:
                print(f"[{severity.name}] {message}", file=sys.stderr)

    return Log()


def parse_graph(parser: "trt.OnnxParser", path: Path, name: str, log: Any) -> None:
    """Read the graph and the data beside it; ModelError names the operator that `name` refuses.

    `log` is the parser's, from `open_log`.
    """
    if parser.parse_from_file(str(path)):
        return
    error = parser.get_error(0) if parser.num_errors else None
    if error is None or error.node() < 0:  # not about a node: a file is missing or broken
        said = first_error(log)
        raise ModelError(f"{name} cannot read {path}: {said}; export the model again")
    raise ModelError(
        f"{name} refuses the operator {error.node_operator()} of {path.stem} "
        f"(node {error.node_name()}): {error.desc()}; choose another --backend"
    )


def first_error(log: Any) -> str:
    """The first thing that went wrong is the cause of the others."""
    return log.errors[0] if log.errors else "it gave no reason"


def allow_unfused_attention(network: "trt.INetworkDefinition", library: Any) -> None:
    """Let attention that has no kernel of its own (fp32, wide heads) be taken apart.

    It would be refused otherwise; where there is a kernel, it is still taken.
    """
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == library.LayerType.ATTENTION_OUTPUT:
            layer.__class__ = library.IAttentionOutputLayer  # the bindings' way to cast
            layer.attention.decomposable = True


def set_shapes(network: "trt.INetworkDefinition", shapes: Mapping[str, Sizes]) -> None:
    """Fix the sizes of every input; ModelError where the graph's are others (-1: any)."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if odd := sorted({tensor.name for tensor in inputs} ^ set(shapes)):
        raise ModelError(f"the graph's inputs and the sizes differ: {', '.join(odd)}; export again")
    for tensor in inputs:
        graph, wanted = tuple(tensor.shape), shapes[tensor.name]
        pairs = zip(graph, wanted, strict=False)
        if len(graph) != len(wanted) or any(size not in (-1, fixed) for size, fixed in pairs):
            raise ModelError(
                f"the graph's input {tensor.name} is {list(graph)}, which cannot be "
                f"{list(wanted)}: export the model for this profile"
            )
        tensor.shape = wanted
