"""Reading an interface out of a module, and the file that it is written to."""

import enum
import json
from types import ModuleType
from typing import Any

import pytest
from tests.api_surface import clean, read_surface, signatures
from tests.tensorrt_bindings import as_lines


class Documented:
    """Carries a docstring as pybind11 writes it."""

    def __init__(self, text: str) -> None:
        self.__doc__ = text

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "f(self: m.m.B, flags: typing.SupportsInt = 0) -> m.m.N\n\nwords",
            ["(flags: SupportsInt = ...) -> N"],
        ),
        (
            "f(*args, **kwargs)\nOverloaded.\n\n1. f(self: B, a: m.C) -> bool\n\n2. f(b: list[m.D]) -> X\n",
            ["(a: C) -> bool", "(b: list[D]) -> X"],
        ),
        ("f() -> int", ["() -> int"]),
        ("f(self: m.E, s: m.Stat = <Stat.ALL: 0>) -> int", ["(s: Stat = ...) -> int"]),
        ("f(flag: nv::x::Flag) -> m.Outer.Inner", ["(flag: Flag) -> Outer.Inner"]),
        ("nothing of the kind", []),
    ],
)
def test_overloads_come_from_the_docstring(text: str, wanted: list[str]) -> None:
    assert signatures("f", Documented(text)) == wanted


def test_a_module_becomes_plain_data() -> None:
    class Level(enum.IntEnum):
        LOW = 0
        HIGH = 5

    class Base:
        def __init__(self, size: int, name: str = "") -> None: ...

    class Engine(Base):
        Kind = Level

        @property
        def layers(self) -> int:
            return 1

        @layers.setter
        def layers(self, value: int) -> None: ...

        def run(self, stream: int) -> None: ...

    module = ModuleType("library")
    module.__dict__.update(
        Base=Base, Engine=Engine, Level=Level, half=Level.LOW, _own=1, json=json, make=lambda a: a
    )
    surface: dict[str, Any] = read_surface(module)
    assert surface["enums"] == {
        "Engine.Kind": {"LOW": 0, "HIGH": 5},
        "Level": {"LOW": 0, "HIGH": 5},
    }
    assert surface["functions"] == {"make": ["(a)"]} and surface["constants"] == {"half": "Level"}
    assert surface["classes"]["Engine"]["bases"] == ["Base"]
    assert surface["classes"]["Engine"]["methods"] == {"run": ["(stream)"]}
    assert surface["classes"]["Engine"]["properties"] == {"layers": "rw"}
    assert surface["classes"]["Base"]["init"] == ["(size, name = ...)"]
    assert json.loads(as_lines(surface)) == surface
    assert as_lines({"a": {"b": 1, "c": [2]}}, 2) == '{\n"a": {\n"b": 1,\n"c": [2]\n}\n}'


def test_defaults_and_paths_are_left_out() -> None:
    assert clean("typing_extensions.Buffer, path: str = None") == "Buffer, path: str = ..."
