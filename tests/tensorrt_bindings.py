"""The names and signatures of TensorRT's Python bindings, written to a JSON file.

    python -m tests.tensorrt_bindings tests/engines/tensorrt_11_bindings.json

The bindings' wheel is public but links to libraries that need a GPU and are gigabytes large. Their
interface can be read without them: a stand-in for each library, with the few functions that the
bindings link to, lets Python import the real module. Nothing in it can be called beyond that.

Needs pip's access to the package index, and a C compiler.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.api_surface import read_surface

PACKAGE = "tensorrt-cu13-bindings"
VERSION = "11.4.0.106"
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def unpack_bindings(folder: Path, version: str) -> None:
    """Put the package `tensorrt` of `version` into `folder`, and stand-ins for its libraries."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, f"--dest={folder}", f"{PACKAGE}=={version}"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    (folder / "tensorrt_bindings").rename(folder / "tensorrt")
    source = folder / "nothing.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for name in _LIBRARIES:
        soname = f"lib{name}.so.{version.partition('.')[0]}"
        build = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname)]
        subprocess.run([*build, str(source)], check=True)


def use_bindings(folder: Path) -> None:
    """Make this process import `tensorrt` from `folder`, as `unpack_bindings` left it."""
    for library in sorted(folder.glob("lib*.so.*")):
        # Once loaded under its name it also serves the bindings, which ask for that name.
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))


def read_bindings(version: str, command: str) -> dict[str, Any]:
    """What the file holds: the surface of each module, and where it came from."""
    modules = {name: read_surface(import_module(name)) for name in ("tensorrt", "tensorrt.plugin")}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"from": f"{PACKAGE} {version}, Python {python}", "command": command, **modules}


def as_lines(content: Mapping[str, Any], depth: int = 3) -> str:
    """JSON with one line for each entry `depth` levels down, so that a new version's diff reads."""
    if not depth or not isinstance(content, dict) or not content:
        return json.dumps(content)
    lines = [f"{json.dumps(key)}: {as_lines(value, depth - 1)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--version", default=VERSION)
    parser.add_argument("--keep", type=Path, help="an empty folder to leave the bindings in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        unpack_bindings(folder, options.version)
        use_bindings(folder)
        command = f"python -m tests.tensorrt_bindings {options.output}"
        if options.version != VERSION:
            command += f" --version {options.version}"
        content = read_bindings(options.version, command)
    options.output.write_text(as_lines(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
