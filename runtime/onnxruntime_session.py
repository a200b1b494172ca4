"""Stages on ONNX Runtime, on the CPU."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError, VrTrtError
from vr_trt.runtime.session import Array, Tensor

_ERRORS = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
    RuntimeError,  # what a run with bound inputs and outputs raises
    ValueError,
)
_SILENT = 4  # fatal only: what goes wrong is raised and told once


@dataclass(frozen=True, kw_only=True, slots=True)
class OrtOptions:
    """How sessions run: `threads` for one operator, 0 for every core."""

    threads: int = 0

    def session_options(self) -> onnxruntime.SessionOptions:
        """ONNX Runtime's own form of it."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        # Arenas keep the peak of every stage for ever, one beside the other; without them the
        # stages take turns with the same memory.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        # Waiting threads must not spin: decoding and encoding need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options


class OrtSession:
    """One ONNX graph; a `vr_trt.runtime.session.Session`."""

    def __init__(self, plan: Path, options: OrtOptions) -> None:
        onnxruntime.set_default_logger_severity(_SILENT)
        self._plan = plan
        try:
            self._session = onnxruntime.InferenceSession(
                plan, options.session_options(), providers=["CPUExecutionProvider"]
            )
        except _ERRORS as error:
            raise _translated(error, plan, "load") from None
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _SILENT
        self._inputs = {node.name: _shape(node.shape) for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._bound: dict[str, Array | Tensor] = {}

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        return MappingProxyType(self._inputs)

    @property
    def outputs(self) -> Sequence[str]:
        return tuple(self._outputs)

    def bind(self, name: str, value: Array | Tensor) -> None:
        if name not in self._inputs:
            raise ModelError(f"{self._plan.name} has no input {name!r}: it is not the graph meant")
        self._bound[name] = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        # A binding of its own for each call: it would keep the last inputs alive otherwise.
        binding = self._session.io_binding()
        bound, self._bound = self._bound, {}
        try:
            for name, value in bound.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, value)
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name)
            self._session.run_with_iobinding(binding, self._run_options)
        except _ERRORS as error:
            if self._run_options.terminate:
                raise InterruptedRun(f"{self._plan.stem} was stopped") from None
            raise _translated(error, self._plan, "run") from None
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))

    def cancel(self) -> None:
        self._run_options.terminate = True


def load(plan: Path, options: OrtOptions | None = None) -> OrtSession:
    """The graph in the file `plan`, ready to run; ModelError where it cannot be loaded."""
    return OrtSession(plan, options or OrtOptions())


def _shape(sizes: Sequence[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _translated(error: Exception, plan: Path, verb: str) -> VrTrtError:
    """ONNX Runtime's error as one line of ours."""
    text = " ".join(str(error).split())
    if "alloc" in text.lower():
        return MemoryBudgetError(
            f"out of memory in {plan.name}: choose a smaller profile or free memory ({text})"
        )
    return ModelError(f"cannot {verb} {plan}: {text}; get the model again or report this")
