"""The house: links, rooms that import nothing upwards, and a wheel that holds everything."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import vr_trt

ROOT = Path(__file__).parents[1]
ROOMS = ("export", "kernels", "engines", "runtime", "bench")
FACE = ("__init__", "__main__", "cli")  # and cli_*: may import everything
MAY_IMPORT: dict[str, set[str]] = {
    "kernels": set(),
    "export": {"kernels"},
    "engines": {"export", "kernels"},
    "runtime": {"engines", "kernels"},
    "bench": {"export", "kernels", "engines", "runtime"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_the_package_links_to_the_rooms(room: str) -> None:
    link = ROOT / "src/vr_trt" / room
    assert link.is_symlink(), f"{link} is no link: on Windows, git needs core.symlinks=true"
    assert link.resolve() == ROOT / room
    assert not (ROOT / room / "__init__.py").exists()


def room_of(module: str) -> str | None:
    """The room of `vr_trt.<room>…`, `vr_trt` for the face, None for what may be imported by all.

    Those are the errors and the version.
    """
    parts = module.split(".")
    if parts[0] != "vr_trt" or parts[1:2] in ([], ["errors"], ["__version__"]):
        return None
    return parts[1] if parts[1:2] and parts[1] in ROOMS else "vr_trt"


def imports(path: Path, types: bool = True) -> set[str]:
    """Every module that the file imports, anywhere in it; `types`: for type checkers too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree = WithoutTypes().visit(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


class WithoutTypes(ast.NodeTransformer):
    """Takes out `if TYPE_CHECKING:`, which never runs."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_types else self.generic_visit(node)


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_imports_upwards(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room, None}
    for path in (ROOT / room).rglob("*.py"):
        wrong = {name for name in imports(path) if room_of(name) not in allowed}
        assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


def test_nothing_imports_in_a_circle() -> None:
    """Within the rooms, module by module; imports inside functions count, those for types do not."""
    graph = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = ".".join(("vr_trt", *path.relative_to(ROOT).with_suffix("").parts))
            graph[name] = imports(path, types=False)
    edges = {
        name: {other for other in graph for target in targets if target_is(target, other)}
        for name, targets in graph.items()
    }
    while leaves := [name for name, targets in edges.items() if not targets & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]
    assert not edges, f"a circle among {sorted(edges)}"


def target_is(target: str, module: str) -> bool:
    """Whether importing `target`, a module or a name in one, imports `module`."""
    return target == module or target.rpartition(".")[0] == module


def test_errors_import_nothing_of_ours() -> None:
    assert not {name for name in imports(ROOT / "src/vr_trt/errors.py") if "vr_trt" in name}


def test_no_module_hides_one_of_the_standard_library() -> None:
    names = {path.stem for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not names & sys.stdlib_module_names


def test_the_version_is_written_once_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == vr_trt.__version__


@pytest.mark.slow
def test_the_wheel_holds_every_tracked_file(tmp_path: Path) -> None:
    """Built through the source distribution, as an installer builds it."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    listing = ["git", "ls-files", "-z", "--", *ROOMS, "src/vr_trt"]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if path.is_symlink():
            continue
        inside = name.removeprefix("src/") if name.startswith("src/") else f"vr_trt/{name}"
        assert inside in held, f"{name} is not in the wheel: see package-data in pyproject.toml"
