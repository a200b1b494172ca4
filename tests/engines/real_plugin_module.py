"""Our plugin through TensorRT's own Python layer, without TensorRT: `python -m` this module, FOLDER.

FOLDER is what `tests.tensorrt_bindings --keep` left. What the layer takes from the compiled
library (dimension expressions, the registry) is replaced by arithmetic; the checks of signatures,
the combinations of types and the way to the launch are the real ones. Prints the launch as JSON.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.tensorrt_bindings import use_bindings

ROWS, COLUMNS, SM = 50, 128, 90


class Number:
    """In the place of IDimensionExpr."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Arithmetic:
    """In the place of IExprBuilder."""

    def constant(self, value: int) -> Number:
        return Number(value)

    def operation(self, operation: Any, first: Number, second: Number) -> Number:
        compute: dict[str, Callable[[int, int], int]] = {
            "SUM": int.__add__,
            "SUB": int.__sub__,
            "PROD": int.__mul__,
            "CEIL_DIV": lambda a, b: -(-a // b),
        }
        return Number(compute[operation.name](first.value, second.value))


class Registry:
    """In the place of IPluginRegistry."""

    def __init__(self) -> None:
        self.creators: list[tuple[Any, str]] = []

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        found = [creator for creator, owner in self.creators if owner == namespace]
        return found[0] if found else None

    def register_creator(self, creator: Any, plugin_namespace: str) -> bool:
        self.creators.append((creator, plugin_namespace))
        return True


def main(folder: Path) -> None:
    use_bindings(folder)
    import tensorrt as trt

    registry = Registry()
    trt.IDimensionExpr = Number
    trt.get_plugin_registry = lambda: registry
    trt.DimsExprs = lambda length: [None] * length
    import tensorrt.plugin as trtp
    from tensorrt.plugin import _lib, _plugin_class, _tensor

    from vr_trt.engines.plugins import register_plugins

    _tensor.SymExprImpl = lambda expr: expr._expr.value
    register_plugins(SM)
    ((creator, namespace),) = registry.creators
    definition = _lib.QDP_REGISTRY["vr_trt::rms_norm"]
    plugin = _plugin_class._TemplateAOTPlugin("rms_norm", namespace, definition.num_outputs)
    plugin.init(
        definition.register_func,
        {"eps": 1e-5},
        definition.aot_impl_attr_names,
        definition.aot_impl_func,
        definition.autotune_attr_names,
        definition.autotune_func,
    )
    (dtype,) = plugin.get_output_data_types([trt.DataType.BF16], [2])
    (shape,) = plugin.get_output_shapes([[Number(ROWS), Number(COLUMNS)]], [], Arithmetic())
    ends = [_end(trt) for _ in range(2)]
    plugin.get_supported_format_combinations(ends, 1)
    kinds = sorted([kind.name for kind in comb.types] for comb in plugin.supported_combs)
    plugin.configure_plugin(ends[:1], ends[1:])
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    launch, extras = SimpleNamespace(), _Extras()
    plugin.get_launch_params([], ends, 1, launch, extras, Arithmetic())
    name, ptx = plugin.get_kernel([end.desc for end in ends[:1]], [end.desc for end in ends[1:]])
    found = {
        "creator": [creator.name, namespace],
        "output": [dtype.name, [size.value for size in shape]],
        "types": kinds,
        "kernel": name,
        "ptx": ptx.decode(),
        "grid": [launch.grid_x, launch.grid_y, launch.grid_z],
        "block": [launch.block_x, launch.block_y, launch.block_z],
        "shared": launch.shared_mem,
        "extras": extras.values,
        "callable": callable(trtp.op.vr_trt.rms_norm),
    }
    print(json.dumps(found))


def _end(trt: Any) -> Any:
    """A description of one end of the plugin, input or output."""
    end = trt.DynamicPluginTensorDesc()
    desc = trt.PluginTensorDesc()
    desc.dims, desc.type, desc.format = (ROWS, COLUMNS), trt.DataType.BF16, trt.TensorFormat.LINEAR
    end.desc = desc
    return end


class _Extras:
    """In the place of ISymExprs, which the layer sizes and fills."""

    def __init__(self) -> None:
        self.nbSymExprs = 0
        self.values: list[int] = []

    def __setitem__(self, index: int, value: int) -> None:
        assert index == len(self.values) < self.nbSymExprs
        self.values.append(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
