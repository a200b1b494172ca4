"""What a backend gives so that its engines can be built, and the table of those there are.

A builder turns one stage's graph into a plan. It runs in a process of its own (see
`build_process`), so it may crash or be killed without harm, and it writes into a folder that
nobody else sees until it is finished (see `cache`): it needs no care for either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError

Progress = Callable[[str], None]  # hears in a few words what the builder does now


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a builder says of the plan it made; goes into the manifest."""

    seconds: dict[str, float]  # by step: "parse", "build"
    facts: dict[str, Any] = field(default_factory=dict)  # plain JSON values: workspace, timings
    notes: Sequence[str] = ()  # for whoever builds, a line each


class Builder(Protocol):
    """One backend's way from a graph to a plan."""

    @property
    def name(self) -> str:
        """As in `--backend`."""

    @property
    def targets(self) -> Sequence[int]:
        """Compute capabilities that it can build for, here, as 89; empty: for the CPU only."""

    @property
    def default_targets(self) -> Sequence[int]:
        """Those it builds for if none are asked for: a subset of `targets`."""

    @property
    def recipe(self) -> int:
        """Raised by hand when this code would make another plan of the same spec."""

    @property
    def cuts(self) -> bool:
        """Whether it takes a VAE cut by resolution; else it takes the whole one, whatever is asked."""

    def version(self) -> str:
        """Of the backend's library, as it is installed; "" where it is not."""

    def available(self) -> str | None:
        """None, or why it cannot build here and the command that changes it."""

    def check(self, precision: str, sm: int | None) -> None:
        """ModelError if it has no `precision` on `sm` (None: the CPU); says what does."""

    def flags(self, options: Mapping[str, str]) -> Mapping[str, str]:
        """`options` completed with defaults and with whatever else decides the plan's content.

        ModelError for an option that it does not have. The result is the spec's `flags`.
        """

    def estimate_memory(self, spec: EngineSpec, weights: int) -> int:
        """Bytes of host memory at the peak of a build with so many bytes of weights."""

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        """Write the plan to `out_path`; what else it needs at run time goes beside it.

        The graph's external data lies beside `onnx_path`. Standard output and standard error are the
        log: print what the library says. ModelError names the operator or node that was refused.
        """


PLAN = "plan"
LOG = "build.log"  # what the library said
# Each in a file of its own, which imports the backend's library inside its functions only.
_MODULES = {
    "tensorrt-rtx": "vr_trt.engines.build_tensorrt_rtx",
    "tensorrt": "vr_trt.engines.build_tensorrt",
    "triton": "vr_trt.engines.build_triton",
    "onnxruntime": "vr_trt.engines.build_onnxruntime",
}  # in the order in which a run prefers them
BACKENDS = tuple(_MODULES)


def find_builder(name: str) -> Builder:
    """The builder called `name`: its module's `BUILDER`; ModelError lists the names there are."""
    if name not in _MODULES:
        raise ModelError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    builder: Builder = import_module(_MODULES[name]).BUILDER
    return builder
