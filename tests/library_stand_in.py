"""A module made from a library's interface: right names and arguments, no behaviour.

Every call is checked against the signatures that `tests.api_surface` read, and recorded.
What a call returns is an object of the type that its signature names; a test gives `answers` where
that matters.
"""

import enum
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.api_check import overload_arguments
from tests.api_surface import Surface

Call = tuple[str, dict[str, Any]]  # "Builder.create_network", its arguments by name


class StandIn(ModuleType):
    """`calls` in their order; `answers` maps a call's name to what computes its result."""

    def __init__(self, name: str, surface: Surface) -> None:
        super().__init__(name)
        self.surface = surface
        self.calls: list[Call] = []
        self.answers: dict[str, Callable[..., Any]] = {}
        self.settings: dict[str, Any] = {}  # "IBuilderConfig.max_aux_streams": 2
        for key, members in surface["enums"].items():
            self._place(key, enum.IntEnum(key.rpartition(".")[2], members))
        for key in sorted(surface["classes"], key=self._depth):
            self._place(key, self._class(key))
        for key in surface["enums"]:
            owner, _, name = key.rpartition(".")
            if owner:
                setattr(self._find(owner), name, self._enums[key])
        for key in surface["functions"]:
            setattr(self, key, self._function(key, surface["functions"][key]))

    def called(self, name: str) -> list[dict[str, Any]]:
        """The arguments of every call of `name`."""
        return [arguments for call, arguments in self.calls if call == name]

    def _depth(self, key: str) -> int:
        return len(self.surface["classes"][key].get("bases", ()))

    @property
    def _enums(self) -> dict[str, Any]:
        return self.__dict__.setdefault("_made", {})

    def _place(self, key: str, value: Any) -> None:
        if "." in key:
            self._enums[key] = value
        else:
            self._enums[key] = value
            setattr(self, key, value)

    def _find(self, key: str) -> Any:
        return self._enums[key]

    def _class(self, key: str) -> type:
        entry = self.surface["classes"][key]
        bases = tuple(
            self._enums[name] for name in entry.get("bases", ())[:1] if name in self._enums
        )
        content: dict[str, Any] = {"__init__": self._function(key, entry.get("init", []), own=True)}
        for name, overloads in entry.get("methods", {}).items():
            content[name] = self._function(f"{key}.{name}", overloads, own=True)
        for name, access in entry.get("properties", {}).items():
            content[name] = self._property(f"{key}.{name}", access)
        return type(key.rpartition(".")[2], bases, content)

    def _property(self, name: str, access: str) -> property:
        rights, _, kind = access.partition(" ")

        def read(_: Any) -> Any:
            if name in self.answers:
                return self.answers[name]()
            return self.settings.get(name, self._nothing(kind))

        def write(_: Any, value: Any) -> None:
            self.settings[name] = value

        return property(read, write if rights == "rw" else None)

    def _function(
        self, name: str, overloads: list[str], *, own: bool = False
    ) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            given = given[1:] if own else given
            overload, bound = _bind(name, overloads, given, named)
            self.calls.append((name, bound))
            if name in self.answers:
                return self.answers[name](**bound)
            return self._nothing(overload.partition(" -> ")[2])

        return call

    def _nothing(self, kind: str) -> Any:
        """An object of the type called `kind`, as plain as can be."""
        made = self._enums.get(kind) or self._enums.get(kind.removeprefix("I"))
        if isinstance(made, type) and not issubclass(made, enum.Enum):
            return made.__new__(made)
        if made is not None:
            return next(iter(made))
        if kind.startswith(("list", "tuple")):
            return []
        return {"bool": True, "int": 0, "str": "", "float": 0.0}.get(kind)


def _bind(
    name: str, overloads: list[str], given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The overload that a call fits, and its arguments by name; TypeError if none does."""
    for overload in overloads or ["() -> None"]:
        wanted = overload_arguments(overload)
        needed = {key for key, kind in wanted.items() if "=" not in kind}
        bound = dict(zip(wanted, given, strict=False)) | named
        if len(given) <= len(wanted) and needed <= bound.keys() <= wanted.keys():
            return overload, bound
    raise TypeError(f"{name}{' or '.join(overloads)} called with {given} {named}")
