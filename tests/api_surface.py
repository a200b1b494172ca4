"""What an extension module offers, read from the module itself: names, arguments, enum values.

Compiled bindings have no inspectable signatures, but pybind11 writes each overload's into the
docstring. The result is plain data that fits in a JSON file, so that code can be held to a library
that is not installed.
"""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

Surface = dict[str, dict[str, Any]]

_QUALIFIERS = re.compile(r"\b(?:typing_extensions|typing|collections\.abc|builtins)\.|\b\w+::")
_ADDRESS = re.compile(r"<[^<>]*>")  # how a default such as an enum member is printed


def read_surface(module: ModuleType) -> Surface:
    """The public names of `module`: {"functions", "classes", "enums", "constants"}.

    A signature is one string per overload, "(flags: SupportsInt = ...) -> INetworkDefinition",
    without self; a property is "r" or "rw" and its type.
    """
    surface: Surface = {"functions": {}, "classes": {}, "enums": {}, "constants": {}}
    for name, value in _public(vars(module)):
        if type(value) is ModuleType:  # an imported one, not a namespace of its own
            continue
        if inspect.isclass(value):
            _add_class(surface, name, value, set())
        elif callable(value):
            surface["functions"][name] = signatures(name, value)
        else:
            surface["constants"][name] = type(value).__name__
    return surface


def _public(names: Any) -> Iterator[tuple[str, Any]]:
    return ((name, names[name]) for name in sorted(names) if not name.startswith("_"))


def _add_class(surface: Surface, name: str, cls: type, seen: set[type]) -> None:
    """Enter a class, and the classes nested in it, under dotted names."""
    if cls in seen:
        return
    members = getattr(cls, "__members__", None)
    if members is not None:
        surface["enums"][name] = {key: int(value) for key, value in members.items()}
        return
    entry: dict[str, Any] = {"bases": [base.__name__ for base in cls.__mro__[1:] if _ours(base)]}
    entry["init"] = signatures("__init__", cls.__init__)  # type: ignore[misc]
    entry["methods"], entry["properties"], entry["constants"] = {}, {}, []
    for key, value in _public(vars(cls)):
        if inspect.isclass(value):
            _add_class(surface, f"{name}.{key}", value, seen | {cls})
        elif isinstance(value, property):
            entry["properties"][key] = _property(value)
        elif callable(value) or isinstance(value, staticmethod | classmethod):
            entry["methods"][key] = signatures(key, getattr(cls, key))
        else:
            entry["constants"].append(key)
    surface["classes"][name] = {key: value for key, value in entry.items() if value}


def _ours(base: type) -> bool:
    return base is not object and not base.__module__.startswith(("pybind11", "abc", "builtins"))


def _property(value: property) -> str:
    returned = re.search(r"-> (.+)", value.fget.__doc__ or "") if value.fget else None
    access = "rw" if value.fset else "r"
    return f"{access} {clean(returned[1])}" if returned else access


def signatures(name: str, function: Any) -> list[str]:
    """Every overload of `function` as "(argument: type = ...) -> type", self left out."""
    lines = re.findall(
        rf"^(?:\d+\. )?{name}\((.*)\) -> (.+)$", function.__doc__ or "", re.MULTILINE
    )
    if lines:
        return [
            f"({_without_self(clean(arguments))}) -> {clean(back)}" for arguments, back in lines
        ]
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return []
    signature = inspect.signature(function)
    arguments = [
        parameter.name + (" = ..." if parameter.default is not parameter.empty else "")
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return [f"({', '.join(arguments)})"]


def clean(text: str) -> str:
    """A printed type or argument list without module paths and printed default values."""
    text = _ADDRESS.sub("...", text)
    text = _QUALIFIERS.sub("", text)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)  # tensorrt.tensorrt.Builder
    return re.sub(r" = [^,()\[\]]+", " = ...", text)


def _without_self(arguments: str) -> str:
    first, _, rest = arguments.partition(", ")
    return rest if first.startswith("self:") or first == "self" else arguments
