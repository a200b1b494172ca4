"""Polygraphy, NVIDIA's tool for comparing backends and for cutting a failing graph down."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import ModelError

# The package cannot be run with -m.
_TOOL = (sys.executable, "-P", "-c", "from polygraphy.tools import main; main()")
_ENVIRONMENT = "POLYGRAPHY_USE_TENSORRT_RTX"


def polygraphy_command(what: Literal["compare", "reduce"], graph: Path, *, rtx: bool) -> list[str]:
    """The command line for `graph`, with TensorRT-RTX or with TensorRT."""
    if what == "compare":
        return [*_TOOL, "run", str(graph), "--onnxrt", "--trt", "--atol=1e-2", "--rtol=1e-2"]
    small = graph.with_name(f"{graph.stem}.reduced.onnx")
    check = [*_TOOL, "convert", "polygraphy_debug.onnx", "--convert-to=trt", f"-o={os.devnull}"]
    if rtx:  # which builds without a GPU if it is told what for
        check += ["--compute-capabilities", "8.9", "12.0"]
    reduce = ["debug", "reduce", str(graph), "-o", str(small), "--mode=bisect"]
    return [*_TOOL, *reduce, "--check", *check]


def run_polygraphy(what: Literal["compare", "reduce"], graph: Path) -> int:
    """Run Polygraphy on `graph`, with TensorRT where it is installed, else TensorRT-RTX.

    Gives its exit code. ModelError if it is not installed, the graph is not there, or a comparison
    has no GPU to run on.
    """
    missing = [name for name in ("polygraphy", "onnx_graphsurgeon") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{' and '.join(missing)} not installed: pip install polygraphy onnx-graphsurgeon"
        )
    if not graph.is_file():
        raise ModelError(f"{graph} does not exist: name a stage's .onnx file")
    if what == "compare" and present_gpu() is None:
        raise ModelError(
            "a comparison runs the graph on a GPU, and there is none here: use --reduce"
        )
    rtx = find_spec("tensorrt") is None
    environment = {**os.environ, _ENVIRONMENT: "1"} if rtx else dict(os.environ)
    command = polygraphy_command(what, graph.absolute(), rtx=rtx)
    with TemporaryDirectory() as folder:  # it leaves its own notes where it runs
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode
