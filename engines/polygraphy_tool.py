"""Polygraphy, NVIDIA's tool for comparing backends and for cutting a failing graph down."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from vr_trt.errors import ModelError


def polygraphy_command(what: Literal["compare", "reduce"], graph: Path) -> list[str]:
    """The command line for `graph`."""
    tool = [sys.executable, "-P", "-m", "polygraphy"]
    if what == "compare":
        return [*tool, "run", str(graph), "--onnxrt", "--trt", "--atol=1e-2", "--rtol=1e-2"]
    small = graph.with_name(f"{graph.stem}.reduced.onnx")
    check = [
        "--check",
        *tool,
        "convert",
        "polygraphy_debug.onnx",
        "--convert-to=trt",
        "-o=/dev/null",
    ]
    return [*tool, "debug", "reduce", str(graph), "-o", str(small), "--mode=bisect", *check]


def run_polygraphy(what: Literal["compare", "reduce"], graph: Path) -> int:
    """Run Polygraphy on `graph` with TensorRT-RTX where that is what is installed; its exit code.

    ModelError if it is not installed or the graph is not there.
    """
    if find_spec("polygraphy") is None and shutil.which("polygraphy") is None:
        raise ModelError("Polygraphy is not installed: pip install polygraphy")
    if not graph.is_file():
        raise ModelError(f"{graph} does not exist: name a stage's .onnx file")
    environment = dict(os.environ)
    if find_spec("tensorrt") is None:
        environment["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    return subprocess.run(polygraphy_command(what, graph), env=environment, check=False).returncode
