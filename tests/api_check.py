"""Holds a source file to a library's interface without the library: names, arguments, types.

The interface is what `tests.api_surface` read. The source is parsed, not run. Types are
followed through imports, annotations (`config: "trt.IBuilderConfig"`), assignments and what calls
return; an expression whose type is unknown is not checked, which `used` makes visible.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from tests.api_surface import Surface


@dataclass(frozen=True, slots=True)
class Thing:
    """What an expression is: a module, a class, an enum, an instance of one, or a function."""

    kind: str  # "module", "class", "enum", "value", "call"
    name: str
    module: str
    overloads: tuple[str, ...] = ()


class ApiCheck(ast.NodeVisitor):
    """`errors` after `check(...)`: one line each; `used`: the names that were looked up."""

    def __init__(
        self, surfaces: Mapping[str, Surface], arguments: Mapping[str, str] | None = None
    ) -> None:
        """`arguments` names the parameters that stand for a module: {"library": "tensorrt"}."""
        self.surfaces = surfaces
        self.arguments = arguments or {}
        self.errors: list[str] = []
        self.used: set[str] = set()
        self._names: list[dict[str, Thing | None]] = [{}]
        self._where = ""
        self._own: dict[str, Thing | None] = {}  # self.… of the class that is read

    def check(self, source: str, where: str = "source") -> "ApiCheck":
        self._where = where
        self.visit(ast.parse(source))
        return self

    def _fail(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.errors.append(f"{self._where}:{node.lineno}: {text}")

    # Names and where they come from

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name in self.surfaces:
                assert name.asname or "." not in name.name, f"{self._where}: name {name.name}"
                self._names[-1][name.asname or name.name] = Thing("module", name.name, name.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert (node.module or "").partition(".")[0] not in self.surfaces, "import the module"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for expression in (*node.decorator_list, *node.args.defaults):
            self.visit(expression)
        scope = {}
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            module = self.arguments.get(argument.arg)
            given = Thing("module", module, module) if module else None
            scope[argument.arg] = given or self._annotated(argument.annotation)
        returned = self._annotated(node.returns)
        if returned:
            self._names[-1][node.name] = Thing("call", node.name, returned.module, (returned.name,))
        self._names.append(scope)
        for statement in node.body:
            self.visit(statement)
        self._names.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [found for base in node.bases if (found := self.visit(base))]
        self._names[-1][node.name] = bases[0] if bases else None
        for base in bases:
            for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
                if not method.name.startswith("_"):
                    self._override(base, method)
        outer, self._own = self._own, {}
        for statement in node.body:
            self.visit(statement)
        self._own = outer

    def _override(self, base: Thing, method: ast.FunctionDef) -> None:
        """A public method of a subclass must replace one of the library's, with its arguments."""
        found = self._member(Thing("value", base.name, base.module), method.name)
        if found is None:
            self._fail(method, f"{base.module}.{base.name} has no {method.name} to override")
            return
        counts = {len(overload_arguments(overload)) for overload in found.overloads}
        if counts and len(method.args.args) - 1 not in counts:
            self._fail(method, f"{base.name}.{method.name} takes {sorted(counts)} arguments")

    def _annotated(self, node: ast.expr | None) -> Thing | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.BinOp):  # X | None
            node = node.left
        found = self.visit(node) if isinstance(node, ast.Attribute) else None
        if found and found.kind in ("class", "enum"):
            return Thing("value", found.name, found.module)
        return None

    def visit_Assign(self, node: ast.Assign) -> None:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs += zip(target.elts, node.value.elts, strict=True)
            else:
                pairs.append((target, node.value))
        for target, source in pairs:
            value = self.visit(source)
            if isinstance(target, ast.Name):
                self._names[-1][target.id] = value
            elif _is_own(target):
                self._own[target.attr] = value
            elif isinstance(target, ast.Attribute) and target.attr == "__class__":
                self._cast(target, value)
            elif isinstance(target, ast.Attribute):
                self._set(target)
            else:
                self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        value = self.visit(node.value) if node.value else None
        if isinstance(node.target, ast.Name):
            self._names[-1][node.target.id] = self._annotated(node.annotation) or value

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Thing | None:
        value: Thing | None = self.visit(node.value)
        self._names[-1][node.target.id] = value
        return value

    def visit_Name(self, node: ast.Name) -> Thing | None:
        for scope in reversed(self._names):
            if node.id in scope:
                return scope[node.id]
        return None

    def visit_IfExp(self, node: ast.IfExp) -> Thing | None:
        self.visit(node.test)
        found = [self.visit(part) for part in (node.body, node.orelse)]
        return next((thing for thing in found if thing), None)

    # What is done with them

    def _cast(self, target: ast.Attribute, to: Thing | None) -> None:
        """`layer.__class__ = trt.IAttentionOutputLayer`: pybind11 knows no other cast."""
        if isinstance(target.value, ast.Name) and to and to.kind == "class":
            self._names[-1][target.value.id] = Thing("value", to.name, to.module)

    def _set(self, target: ast.Attribute) -> None:
        owner: Thing | None = self.visit(target.value)
        if owner is None:
            return
        self.used.add(f"{owner.module}.{owner.name}.{target.attr}")
        entry = self.surfaces[owner.module]["classes"].get(owner.name, {})
        access = entry.get("properties", {}).get(target.attr)
        if access is None and self._member(owner, target.attr) is None:
            self._fail(target, f"{owner.name} has no {target.attr} to set")
        elif access and not access.startswith("rw"):
            self._fail(target, f"{owner.name}.{target.attr} is read-only")

    def visit_Attribute(self, node: ast.Attribute) -> Thing | None:
        if _is_own(node):
            return self._own.get(node.attr)
        owner: Thing | None = self.visit(node.value)
        if owner is None or owner.kind == "call":
            return None
        found = self._member(owner, node.attr)
        if found is None:
            self._fail(node, f"{owner.module}.{owner.name} has no {node.attr}")
        return found if found and found.kind != "unknown" else None

    def _member(self, owner: Thing, name: str) -> Thing | None:
        surface = self.surfaces[owner.module]
        dotted = name if owner.kind == "module" else f"{owner.name}.{name}"
        self.used.add(f"{owner.module}.{dotted}")
        if dotted in surface["enums"]:
            return Thing("enum", dotted, owner.module)
        if dotted in surface["classes"]:
            return Thing("class", dotted, owner.module)
        if owner.kind == "module":
            if name in surface["functions"]:
                return Thing("call", name, owner.module, tuple(surface["functions"][name]))
            if f"{owner.name}.{name}" in self.surfaces:
                return Thing("module", f"{owner.name}.{name}", f"{owner.module}.{name}")
            known = surface["constants"].get(name)
            return self._value(known, owner.module) if known else None
        if owner.name in surface["enums"]:
            known = name in surface["enums"][owner.name] or name in ("name", "value")
            return Thing("value", owner.name, owner.module) if known else None
        return self._class_member(owner, name)

    def _class_member(self, owner: Thing, name: str) -> Thing | None:
        classes = self.surfaces[owner.module]["classes"]
        if name.startswith("__"):
            return Thing("unknown", name, owner.module)
        for cls in (owner.name, *classes.get(owner.name, {}).get("bases", ())):
            entry = classes.get(cls, {})
            if name in entry.get("methods", {}):
                return Thing("call", f"{cls}.{name}", owner.module, tuple(entry["methods"][name]))
            if name in entry.get("properties", {}):
                return self._value(entry["properties"][name].partition(" ")[2], owner.module)
            own = [
                part for overload in entry.get("init", ()) for part in overload_arguments(overload)
            ]
            # A class written in Python keeps its arguments under their names.
            if name in entry.get("constants", ()) or name in own:
                return Thing("unknown", name, owner.module)
        return None

    def _value(self, type_name: str, module: str) -> Thing:
        surface = self.surfaces[module]
        for name in (type_name, type_name.removeprefix("I")):  # nvonnxparser::IParserError
            if name in surface["classes"] or name in surface["enums"]:
                return Thing("value", name, module)
        return Thing("unknown", type_name, module)

    def visit_Call(self, node: ast.Call) -> Thing | None:
        function: Thing | None = self.visit(node.func)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            self._dynamic(node)
        given = [self.visit(value) for value in node.args]
        named = {word.arg: self.visit(word.value) for word in node.keywords}
        if function is None or function.kind not in ("call", "class"):
            return None
        if function.kind == "class":
            init = self.surfaces[function.module]["classes"][function.name].get("init", ())
            self._arguments(node, function.name, tuple(init), (given, named))
            return Thing("value", function.name, function.module)
        if function.overloads and not function.overloads[0].startswith("("):  # ours, annotated
            return self._value(function.overloads[0], function.module)
        self._arguments(node, function.name, function.overloads, (given, named))
        returned = [overload.partition(" -> ")[2] for overload in function.overloads]
        found = self._value(returned[0], function.module) if returned else None
        return found if found and found.kind != "unknown" else None

    def _dynamic(self, node: ast.Call) -> None:
        owner: Thing | None = self.visit(node.args[0])
        if owner is None or owner.kind == "enum":
            return
        name = node.args[1]
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            self._fail(node, f"{owner.name}: a computed name cannot be checked")
        elif self._member(owner, name.value) is None:
            self._fail(node, f"{owner.module}.{owner.name} has no {name.value}")

    def _arguments(
        self,
        node: ast.Call,
        name: str,
        overloads: Sequence[str],
        arguments: tuple[list[Thing | None], dict[str | None, Thing | None]],
    ) -> None:
        given, named = arguments
        starred = None in named or any(isinstance(value, ast.Starred) for value in node.args)
        if starred or not overloads:
            return
        why = [self._fits(overload, given, named) for overload in overloads]
        if all(why):
            self._fail(node, f"{name}{' or '.join(overloads)}: {why[0]}")

    def _fits(
        self, overload: str, given: Sequence[Thing | None], named: Mapping[str | None, Thing | None]
    ) -> str:
        """Nothing if a call fits the overload, else what is wrong."""
        wanted = overload_arguments(overload)
        if len(given) > len(wanted):
            return f"{len(given)} positional arguments"
        filled = dict(zip(wanted, given, strict=False))
        for word, value in named.items():
            if word not in wanted:
                return f"no argument {word}"
            filled[str(word)] = value
        if missing := [key for key in wanted if key not in filled and "=" not in wanted[key]]:
            return f"{', '.join(missing)} missing"
        for key, value in filled.items():
            kind = wanted[key].partition(" = ")[0]
            if value and value.kind == "value" and not self._is_a(value, kind):
                return f"{key} is a {value.name}"
        return ""

    def _is_a(self, value: Thing, kind: str) -> bool:
        surface = self.surfaces[value.module]
        if kind not in surface["enums"] and kind not in surface["classes"]:
            return True
        bases = surface["classes"].get(value.name, {}).get("bases", ())
        return kind in (value.name, *bases)


def _is_own(node: ast.expr) -> TypeGuard[ast.Attribute]:
    """True for `self.name`."""
    owner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id == "self"


def overload_arguments(overload: str) -> dict[str, str]:
    """{"flags": "SupportsInt = ..."} of "(flags: SupportsInt = ...) -> None"."""
    inner = overload.partition(" -> ")[0].removeprefix("(").removesuffix(")")
    parts = re.split(r", (?![^\[]*\])", inner) if inner else []
    found = {}
    for part in parts:
        name, _, kind = part.partition(": ") if ": " in part else part.partition(" ")
        found[name] = kind
    return found


def sources_that_import(folder: Path, library: str) -> dict[str, str]:
    """{path: text} of the Python files below `folder` that import `library` or a part of it."""
    pattern = re.compile(rf"^\s*import {re.escape(library)}\b", re.MULTILINE)
    texts = {str(path): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    return {path: text for path, text in texts.items() if pattern.search(text)}
