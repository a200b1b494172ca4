"""A `tensorrt.plugin` that records registrations and launches them on paper.

It has what our plugins use, with the argument names of the real module (test_plugins holds them to
the list), the real module's checks of signatures, and expressions that are evaluated for any size.
"""

import inspect
import typing
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, Union

Size = Union[int, "SymInt32"]


class SymInt32:
    """A 32-bit integer computed from input sizes; `at` computes it."""

    def __init__(self, value: Any = None) -> None:
        self._value = value

    def at(self, sizes: dict[str, int]) -> int:
        value = self._value
        if isinstance(value, SymInt32):
            return value.at(sizes)
        result = sizes[value] if isinstance(value, str) else value
        result = result(sizes) if callable(result) else result
        assert isinstance(result, int) and 0 <= result < 2**31
        return result

    def _with(self, other: Size, compute: Callable[[int, int], int]) -> "SymInt32":
        right = other if isinstance(other, SymInt32) else SymInt32(other)
        return type(self)(lambda sizes: compute(self.at(sizes), right.at(sizes)))

    def __add__(self, other: Size) -> "SymInt32":
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Size) -> "SymInt32":
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: Size) -> "SymInt32":
        return self._with(other, lambda a, b: a * b)

    def __floordiv__(self, other: Size) -> "SymInt32":
        return self._with(other, lambda a, b: a // b)


class ShapeExpr(SymInt32):
    """The size of one dimension."""


class SymExprs:
    def __init__(self, length: int) -> None:
        self._exprs: list[Any] = [None] * length

    def __getitem__(self, index: int) -> Any:
        return self._exprs[index]

    def __setitem__(self, index: int, expr: Any) -> None:
        self._exprs[index] = expr

    def __len__(self) -> int:
        return len(self._exprs)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._exprs)


class SymIntExprs(SymExprs):
    """The real one wraps a bare int in a type that its launcher then refuses."""


class TensorDesc:
    def __init__(self, shape_expr: Any = None, dtype: Any = None) -> None:
        self.shape_expr, self.dtype = shape_expr, dtype
        self.shape: tuple[int, ...] = ()

    def like(self) -> "TensorDesc":
        return TensorDesc(self.shape_expr, self.dtype)


class KernelLaunchParams:
    _NAMES = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def __init__(
        self,
        grid_x: Size = 1,
        grid_y: Size = 1,
        grid_z: Size = 1,
        block_x: Size = 1,
        block_y: Size = 1,
        block_z: Size = 1,
        shared_mem: Size = 0,
    ) -> None:
        given = (grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_mem)
        for name, value in zip(self._NAMES, given, strict=True):
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._NAMES:
            raise AttributeError(name)
        super().__setattr__(name, SymInt32(value))


class AutoTuneCombination:
    def __init__(self, io_types: Any = None, layouts: Any = None, tactics: Any = None) -> None:
        self.io_types, self.layouts = io_types, layouts


class PluginStandIn(ModuleType):
    """`plugins`: by name, their functions by role: "register", "autotune", "aot_impl"."""

    def __init__(self) -> None:
        super().__init__("tensorrt.plugin")
        self.plugins: dict[str, dict[str, Callable[..., Any]]] = {}
        self.op = SimpleNamespace()
        for cls in (
            SymInt32,
            ShapeExpr,
            SymExprs,
            SymIntExprs,
            TensorDesc,
            KernelLaunchParams,
            AutoTuneCombination,
        ):
            setattr(self, cls.__name__, cls)

    def register(
        self, plugin_id: str, lazy_register: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            namespace, _, name = plugin_id.partition("::")
            assert namespace and name and "." not in plugin_id
            kinds = [p.annotation for p in inspect.signature(function).parameters.values()]
            assert kinds[0] is TensorDesc and set(kinds[1:]) <= {TensorDesc, int, float, bool, str}
            assert inspect.signature(function).return_annotation is TensorDesc
            assert plugin_id not in self.plugins
            self.plugins[plugin_id] = {"register": function}
            setattr(self.op, namespace, SimpleNamespace(**{name: function}))
            return function

        return decorate

    def autotune(self, plugin_id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            names = list(inspect.signature(function).parameters)
            assert names == [*self._tensors(plugin_id), "outputs"]
            self.plugins[plugin_id]["autotune"] = function
            return function

        return decorate

    def aot_impl(self, plugin_id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            signature = inspect.signature(function)
            described = inspect.signature(self.plugins[plugin_id]["register"])
            assert list(signature.parameters) == [*described.parameters, "outputs", "tactic"]
            name, ptx, launch, extras = typing.get_args(signature.return_annotation)
            assert {*typing.get_args(name), *typing.get_args(ptx)} == {str, bytes}
            assert issubclass(launch, KernelLaunchParams) and issubclass(extras, SymExprs)
            self.plugins[plugin_id]["aot_impl"] = function
            return function

        return decorate

    def _tensors(self, plugin_id: str) -> list[str]:
        parameters = inspect.signature(self.plugins[plugin_id]["register"]).parameters
        return [name for name, value in parameters.items() if value.annotation is TensorDesc]

    def cdiv(self, first: Size, second: Size) -> SymInt32:
        assert isinstance(first, SymInt32)
        return first._with(second, lambda a, b: -(-a // b))


def tensor(sizes: tuple[int, ...], dtype: Any) -> TensorDesc:
    """An input of these sizes, whose expressions are called d0, d1, …"""
    exprs = SymExprs(len(sizes))
    for i in range(len(sizes)):
        exprs[i] = ShapeExpr(f"d{i}")
    described = TensorDesc(exprs, dtype)
    described.shape = sizes
    return described
