"""Engines for the CPU: the graph as it is, proven to load in ONNX Runtime.

The plan is not the optimised form that ONNX Runtime can write: that one belongs to one version of
the library and, at its highest level, to one kind of CPU, and it loads no sooner (0.17 s against
0.16 s for the embedded model's decoder on the machine this was tried on).
"""

import os
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vr_trt.engines.builder import BuildReport, Progress
from vr_trt.engines.chips import check_precision
from vr_trt.engines.onnx_file import data_files
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
# Host memory at the peak, fitted to 67 to 805 MB of fp16 weights (155 MB + 1.97 times the weights,
# which are kept in fp32 too); fp32 weights are read in place and take 1.1 times.
BASE_BYTES = 200 << 20
WEIGHT_COPIES = 2.1


class OnnxRuntimeBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "onnxruntime"
    targets: tuple[int, ...] = ()
    default_targets: tuple[int, ...] = ()
    recipe = 1
    cuts = True

    def version(self) -> str:
        for package in PACKAGES:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return ""

    def available(self) -> str | None:
        return None if self.version() else "onnxruntime is not installed: pip install 'vr-trt[cpu]'"

    def check(self, precision: str, sm: int | None) -> None:
        check_precision(precision)
        if sm is not None:
            raise ModelError(
                f"onnxruntime builds for the CPU, not for sm_{sm}: leave --sm out, or use --backend "
                "tensorrt-rtx or tensorrt"
            )
        if precision == "bf16":
            raise ModelError("onnxruntime has no bf16 on the CPU: choose fp32 or fp16")

    def flags(self, options: Mapping[str, str]) -> Mapping[str, str]:
        if options:
            raise ModelError(f"onnxruntime has no option {next(iter(options))!r}: leave it out")
        return {}

    def estimate_memory(self, spec: EngineSpec, weights: int) -> int:
        return int(BASE_BYTES + WEIGHT_COPIES * weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        import onnxruntime

        start = time.monotonic()
        progress("copying")
        for path in data_files(onnx_path):
            _link_or_copy(path, out_path.with_name(path.name))
        shutil.copyfile(onnx_path, out_path)
        copied = time.monotonic()
        progress("loading")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                out_path, options, providers=["CPUExecutionProvider"]
            )
        except _library_errors() as error:
            said = " ".join(str(error).split())[:400]
            raise ModelError(
                f"onnxruntime refuses {spec.stage} in {spec.precision}: {said}; choose another "
                "--precision"
            ) from None
        facts = {"inputs": len(session.get_inputs()), "outputs": len(session.get_outputs())}
        loaded = time.monotonic() - copied
        return BuildReport(seconds={"copy": copied - start, "load": loaded}, facts=facts)


def _library_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions, which derive from Exception alone, and what it lets through."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
    own = (getattr(state, name) for name in (*names, "NoSuchFile", "RuntimeException"))
    return (RuntimeError, ValueError, *own)


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


BUILDER = OnnxRuntimeBuilder()
