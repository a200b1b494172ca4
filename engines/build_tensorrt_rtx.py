"""Engines for GeForce and RTX cards, built by TensorRT-RTX on any machine: it needs no GPU.

The library always keeps the types of the graph (strongly typed). A plan holds kernels for its
targets or stubs that the card's driver compiles at first use.
"""

import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.builder import BuildReport, Progress
from vr_trt.engines.chips import CHIPS, check_chip, listed
from vr_trt.engines.spec import EngineSpec
from vr_trt.engines.tensorrt_network import (
    allow_unfused_attention,
    first_error,
    open_log,
    parse_graph,
    set_shapes,
)
from vr_trt.errors import ModelError

if TYPE_CHECKING:
    import tensorrt_rtx as trt

PACKAGE = "tensorrt-rtx"
TARGETS = (75, 80, 86, 89, 120, 121)
# Host memory at the peak, fitted to builds of 67 to 805 MB of fp16 and 537 MB of fp32 weights
# (234 MB + 3.06 times the weights; 2.5 GB took 3.2 times), and to nano's (370 MB for 8 MB).
BASE_BYTES = 400 << 20
WEIGHT_COPIES = 3.2
FP8_COPIES = 3.4  # 3.36 GB of E4M3 weights took 11.66 GB
_OPTIONS = {
    "weight_streaming": ("no", "yes"),
    "tf32": ("no", "yes"),  # 11-bit products in fp32; the library's default is on
}


class TensorRtRtxBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "tensorrt-rtx"
    targets = TARGETS
    default_targets = (89, 120)
    recipe = 1
    cuts = True

    def version(self) -> str:
        try:
            return version(PACKAGE)
        except PackageNotFoundError:
            return ""

    def available(self) -> str | None:
        if self.version():
            return None
        return f"{PACKAGE} is not installed: pip install 'vr-trt[rtx]'"

    def check(self, precision: str, sm: int | None) -> None:
        if sm is None:
            raise ModelError(f"{self.name} builds for GPUs: name one with --sm, as --sm 89")
        if sm in CHIPS and sm not in TARGETS:
            raise ModelError(
                f"{self.name} does not support sm_{sm} ({CHIPS[sm]}), only {listed(TARGETS)}: "
                "use --backend tensorrt on that card, or triton"
            )
        check_chip(precision, sm)

    def flags(self, options: Mapping[str, str]) -> Mapping[str, str]:
        flags = {name: values[0] for name, values in _OPTIONS.items()}
        for name, value in options.items():
            if name not in _OPTIONS:
                raise ModelError(
                    f"{self.name} has no option {name!r}: it has {', '.join(_OPTIONS)}"
                )
            if value not in _OPTIONS[name]:
                raise ModelError(f"{name} is one of {', '.join(_OPTIONS[name])}, not {value!r}")
            flags[name] = value
        return flags

    def estimate_memory(self, spec: EngineSpec, weights: int) -> int:
        # The parser keeps the weights, lowering copies them, and the plan holds them once more.
        # Activations are never allocated: nothing runs.
        copies = FP8_COPIES if spec.precision == "fp8" else WEIGHT_COPIES
        return int(BASE_BYTES + copies * weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        import tensorrt_rtx

        start = time.monotonic()
        log = open_log(tensorrt_rtx)
        builder = tensorrt_rtx.Builder(log)
        network = builder.create_network(0)
        parser = tensorrt_rtx.OnnxParser(network, log)
        progress("parsing")
        parse_graph(parser, onnx_path, self.name, log)
        allow_unfused_attention(network, tensorrt_rtx)
        config = builder.create_builder_config()
        _configure(config, tensorrt_rtx, spec)
        set_shapes(network, spec.shapes)
        parsed = time.monotonic()
        progress("building")
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ModelError(
                f"{self.name} cannot build {spec.stage} for {listed(spec.targets)} in "
                f"{spec.precision}: {first_error(log)}; choose another --precision or --backend"
            )
        built = time.monotonic()
        progress("writing")
        with out_path.open("wb") as file:
            file.write(plan)
        return BuildReport(
            seconds={"parse": parsed - start, "build": built - parsed},
            facts={"plan_bytes": plan.nbytes, "layers": network.num_layers, **log.memory},
        )


def _configure(config: "trt.IBuilderConfig", library: Any, spec: EngineSpec) -> None:
    config.num_compute_capabilities = len(spec.targets)
    for i, sm in enumerate(spec.targets):
        config.set_compute_capability(getattr(library.ComputeCapability, f"SM{sm}"), i)
    if spec.flags.get("tf32", "no") == "no":
        config.clear_flag(library.BuilderFlag.TF32)
    if spec.flags["weight_streaming"] == "yes":
        config.set_flag(library.BuilderFlag.WEIGHT_STREAMING)


BUILDER = TensorRtRtxBuilder()
