"""Engines by TensorRT 11 for H100, A100, L40S and every card that TensorRT-RTX does not serve.

It measures kernels, so it builds on the very GPU that the engine is for. Networks are strongly
typed: the graph says where bf16, fp16 and fp8 are.

Never executed by us: it was written against the library's own signatures (a test holds every name
to them) and run against a stand-in and against TensorRT-RTX, which shares this part of the
interface.
"""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.builder import BuildReport, Progress
from vr_trt.engines.chips import CHIPS, check_chip
from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.spec import EngineSpec
from vr_trt.engines.tensorrt_network import (
    allow_unfused_attention,
    first_error,
    open_log,
    parse_graph,
    set_shapes,
)
from vr_trt.engines.tensorrt_options import TensorRtOptions, complete, configure
from vr_trt.engines.tensorrt_plan import describe_plan
from vr_trt.engines.timing_cache import load_timings, save_timings, timing_cache_path
from vr_trt.errors import ModelError
from vr_trt.kernels.aot import why_unavailable

if TYPE_CHECKING:
    import tensorrt as trt

INSTALL = "pip install 'vr-trt[tensorrt]'"
_PACKAGES = ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt")
_MAJOR = "11"
_OLDEST_DRIVER = 13000  # CUDA 13.0: driver 580
# Host memory at the peak. Not measured: tensorrt-rtx's weights, and room for the library's own code.
_BASE_BYTES = 3 << 30
_WEIGHT_COPIES = 3.5


class TensorRtBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "tensorrt"
    recipe = 1
    cuts = True

    @property
    def targets(self) -> Sequence[int]:
        """The chip of this machine's GPU; none where there is none."""
        gpu = present_gpu()
        return (gpu.sm,) if gpu else ()

    @property
    def default_targets(self) -> Sequence[int]:
        return self.targets

    def version(self) -> str:
        for package in _PACKAGES:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return ""

    def available(self) -> str | None:
        found = self.version()
        if not found:
            return f"tensorrt {_MAJOR} is not installed: {INSTALL}"
        if found.partition(".")[0] != _MAJOR:
            return f"tensorrt {found} is installed, {_MAJOR} is needed: {INSTALL}"
        gpu = present_gpu()
        if gpu is None:
            return (
                "tensorrt builds on the GPU that the engine is for, and there is none here: build "
                "there, or with --backend tensorrt-rtx"
            )
        if gpu.driver < _OLDEST_DRIVER:
            return (
                f"the driver serves CUDA {gpu.driver // 1000}, tensorrt {_MAJOR} needs 13: install "
                "driver 580 or newer"
            )
        return None

    def check(self, precision: str, sm: int | None) -> None:
        if sm is None:
            raise ModelError(f"{self.name} builds for GPUs: name one with --sm, as --sm 90")
        check_chip(precision, sm)
        here = self.targets
        if here and sm not in here:
            raise ModelError(
                f"{self.name} builds on the GPU that the engine is for: sm_{sm} ({CHIPS[sm]}) is "
                f"not here, sm_{here[0]} is; build there, or with --backend tensorrt-rtx"
            )

    def flags(self, options: Mapping[str, str]) -> Mapping[str, str]:
        flags = complete(options)
        gpu = present_gpu()
        # Kernels are chosen by measuring, so another card of the same capability gets another plan.
        flags["gpu"] = f"{gpu.name}, {gpu.multiprocessors} multiprocessors" if gpu else ""
        if flags["plugins"] == "yes":
            if reason := why_unavailable():
                raise ModelError(reason)
            flags["triton"] = version("triton")  # compiles them
        return flags

    def estimate_memory(self, spec: EngineSpec, weights: int) -> int:
        return int(_BASE_BYTES + _WEIGHT_COPIES * weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        import tensorrt as trt

        start = time.monotonic()
        options = TensorRtOptions.from_flags(spec.flags)
        log = open_log(trt)
        builder = _open_builder(log)
        progress("parsing")
        network = builder.create_network(_creation_flags(options))
        parser = trt.OnnxParser(network, log)
        parse_graph(parser, onnx_path, self.name, log)
        allow_unfused_attention(network, trt)
        config = builder.create_builder_config()
        configure(config, options)
        set_shapes(network, spec.shapes)
        parsed = time.monotonic()
        progress("measuring kernels")
        plan, timings = _build_plan(builder, network, config, options)
        if plan is None:
            raise ModelError(
                f"tensorrt cannot build {spec.stage} in {spec.precision}: "
                f"{first_error(log)}; choose another --precision or --backend"
            )
        built = time.monotonic()
        progress("writing")
        with out_path.open("wb") as file:
            file.write(plan)
        progress("loading")
        facts = describe_plan(plan, log, out_path.parent)
        return BuildReport(
            seconds={"parse": parsed - start, "build": built - parsed},
            facts={"plan_bytes": plan.nbytes, **timings, **facts},
        )


def _open_builder(log: "trt.ILogger") -> "trt.Builder":
    import tensorrt as trt

    try:
        return trt.Builder(log)
    except TypeError:  # how the bindings say that the library gave them nothing
        raise ModelError(
            "tensorrt finds no GPU that it can use: check with nvidia-smi that the driver is 580 or "
            "newer"
        ) from None


def _creation_flags(options: TensorRtOptions) -> int:
    """Strong typing needs no flag any more."""
    import tensorrt as trt

    if not options.plugins:
        return 0
    from vr_trt.engines.plugins import register_plugins

    register_plugins()
    return 1 << int(trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)


def _build_plan(
    builder: "trt.Builder",
    network: "trt.INetworkDefinition",
    config: "trt.IBuilderConfig",
    options: TensorRtOptions,
) -> "tuple[trt.IHostMemory | None, dict[str, int]]":
    """The plan, None where the library refuses; and the bytes of timings before and after."""
    gpu = present_gpu()
    if gpu is None or not options.timing_cache:
        return builder.build_serialized_network(network, config), {}
    path = timing_cache_path(BUILDER.version(), gpu)
    before = load_timings(config, path)
    plan = builder.build_serialized_network(network, config)
    return plan, {"timings_before": before, "timings_after": save_timings(config, path)}


BUILDER = TensorRtBuilder()
