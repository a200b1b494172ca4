"""Engines for GeForce and RTX cards, built by TensorRT-RTX on any machine: it needs no GPU.

The library always keeps the types of the graph (strongly typed). A plan holds kernels for its
targets or stubs that the card's driver compiles at first use.
"""

import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vr_trt.engines.builder import BuildReport, GraphSize, Progress
from vr_trt.engines.chips import CHIPS, check_chip, listed
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError

PACKAGE = "tensorrt-rtx"
TARGETS = (75, 80, 86, 89, 120, 121)
# Host memory at the peak, fitted to builds of 67 to 805 MB of fp16 and 537 MB of fp32 weights
# (234 MB + 3.06 times the weights; 2.5 GB took 3.2 times), and to nano's (370 MB for 8 MB).
BASE_BYTES = 400 << 20
WEIGHT_COPIES = 3.2
_OPTIONS = {"weight_streaming": ("no", "yes")}


class TensorRtRtxBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "tensorrt-rtx"
    targets = TARGETS
    default_targets = (89, 120)
    recipe = 1

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

    def estimate_memory(self, spec: EngineSpec, size: GraphSize) -> int:
        # The parser keeps the weights, lowering copies them, and the plan holds them once more.
        # Activations are never allocated: nothing runs.
        return int(BASE_BYTES + WEIGHT_COPIES * size.weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        import tensorrt_rtx

        return _Build(tensorrt_rtx, spec).run(onnx_path, out_path, progress)


class _Build:
    """One build, with the library's objects, which must outlive each other in order."""

    def __init__(self, library: Any, spec: EngineSpec) -> None:
        self._trt = library
        self._spec = spec
        self._logger = _logger(library)
        self._builder = library.Builder(self._logger)
        self._network = self._builder.create_network(0)
        self._parser = library.OnnxParser(self._network, self._logger)
        self._config = self._builder.create_builder_config()

    def run(self, onnx_path: Path, out_path: Path, progress: Progress) -> BuildReport:
        start = time.monotonic()
        progress("parsing")
        self._parse(onnx_path)
        self._allow_unfused_attention()
        self._configure()
        parsed = time.monotonic()
        progress("building")
        plan = self._builder.build_serialized_network(self._network, self._config)
        if plan is None:
            raise ModelError(self._refusal())
        built = time.monotonic()
        progress("writing")
        with out_path.open("wb") as file:
            file.write(plan)
        return BuildReport(
            seconds={"parse": parsed - start, "build": built - parsed},
            facts={"plan_bytes": plan.nbytes, "layers": self._network.num_layers},
        )

    def _parse(self, path: Path) -> None:
        if self._parser.parse_from_file(str(path)):
            return
        found = [self._parser.get_error(i) for i in range(self._parser.num_errors)]
        error = found[0] if found else None
        if error is None or not error.node_operator():
            said = error.desc() if error else self._logger.last
            raise ModelError(f"tensorrt-rtx cannot read {path}: {said}; export the model again")
        raise ModelError(
            f"tensorrt-rtx refuses the operator {error.node_operator()} of {self._spec.stage} "
            f"(node {error.node_name()}): {error.desc()}; choose another --backend"
        )

    def _allow_unfused_attention(self) -> None:
        # Attention without a kernel of its own (fp32, and the VAE's one wide head) would be refused;
        # where there is a kernel, it is still taken.
        for i in range(self._network.num_layers):
            layer = self._network.get_layer(i)
            if layer.type == self._trt.LayerType.ATTENTION_OUTPUT:
                layer.__class__ = self._trt.IAttentionOutputLayer  # the bindings' way to cast
                layer.attention.decomposable = True

    def _configure(self) -> None:
        trt, config = self._trt, self._config
        targets = self._spec.targets
        config.num_compute_capabilities = len(targets)
        for i, sm in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)
        if self._spec.flags["weight_streaming"] == "yes":
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        if all(shape.is_static for shape in self._spec.shapes.values()):
            return
        profile = self._builder.create_optimization_profile()
        for name, shape in self._spec.shapes.items():
            profile.set_shape(name, shape.least, shape.best, shape.most)
        config.add_optimization_profile(profile)

    def _refusal(self) -> str:
        said = self._logger.last or "it gave no reason"
        return (
            f"tensorrt-rtx cannot build {self._spec.stage} for {listed(self._spec.targets)} in "
            f"{self._spec.precision}: {said}; choose another --precision or --backend"
        )


def _logger(library: Any) -> Any:
    """Writes to the log, and keeps the last error for the line that a user sees."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.last = " ".join(message.split())[:400]
            if severity <= library.ILogger.Severity.INFO:
                print(f"[{severity.name}] {message}", file=sys.stderr)

    return Log()


BUILDER = TensorRtRtxBuilder()
