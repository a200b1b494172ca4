"""Stages on ONNX Runtime, on the CPU."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast

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
    OrtMemType,
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
    RuntimeError,  # missing inputs, and what the bindings raise themselves
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
        options.intra_op_num_threads = self.threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False  # would reserve a second copy of a call's memory
        # Waiting threads must not spin: decoding and encoding need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _share_arena() -> None:
    """One arena for all sessions of the process, most of it one region.

    Stages take turns with the same memory, and it is not fetched from the system anew each time.
    A session's own arena would keep its peak beside the others'; without any, a third of a run
    on the CPU goes into page faults. The memory stays with the process until it ends.

    Within a region free neighbours are joined, across regions they are not: many small regions
    make a long run creep upwards. A region takes no memory until it is written to.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, OrtMemType.DEFAULT
    )
    arena = onnxruntime.OrtArenaCfg(
        {
            "initial_chunk_size_bytes": (1 << 31) - 1,  # the largest that the bindings take
            "arena_extend_strategy": 0,  # doubling: few regions where the first is too small
            "max_dead_bytes_per_chunk": 1 << 20,  # what is not needed of a chunk is split off
        }
    )
    onnxruntime.create_and_register_allocator(memory, arena)


class OrtSession:
    """One ONNX graph; a `vr_trt.runtime.session.Session`."""

    on_device = False

    def __init__(self, plan: Path, options: OrtOptions) -> None:
        onnxruntime.set_default_logger_severity(_SILENT)
        onnxruntime.disable_telemetry_events()  # what is restored is nobody's business
        _share_arena()
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
        self._half = {n.name for n in self._session.get_inputs() if n.type == "tensor(float16)"}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._bound: dict[str, Array | Tensor] = {}

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        return MappingProxyType(self._inputs)

    @property
    def outputs(self) -> Sequence[str]:
        return tuple(self._outputs)

    def bind(self, name: str, value: Array | Tensor) -> None:
        if name not in self._inputs and name not in self._outputs:
            raise ModelError(
                f"{self._plan.name} has no input or output {name!r}: this is not the graph that was expected"
            )
        if isinstance(value, np.ndarray) and name in self._inputs:
            dtype = np.float16 if name in self._half else value.dtype
            value = np.ascontiguousarray(value, dtype=dtype)
        self._bound[name] = value

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        bound, self._bound = self._bound, {}
        binding = self._session.io_binding()
        try:
            for name in self._inputs.keys() & bound.keys():
                binding.bind_ortvalue_input(name, _on_host(bound[name]))
            for name in self._outputs:
                if name in bound:
                    binding.bind_ortvalue_output(name, _on_host(bound[name]))
                else:
                    binding.bind_output(name)
            self._session.run_with_iobinding(binding, self._run_options)
        except _ERRORS as error:
            if self._run_options.terminate:
                raise InterruptedRun(f"{self._plan.stem} was stopped") from None
            raise _translated(error, self._plan, "run") from None
        values = binding.get_outputs()
        binding.clear_binding_inputs()  # else the outputs keep the inputs alive
        return dict(zip(self._outputs, values, strict=True))

    def cancel(self) -> None:
        self._run_options.terminate = True


def load(plan: Path, options: OrtOptions | None = None) -> OrtSession:
    """The graph in the file `plan`, ready to run; ModelError where it cannot be loaded."""
    return OrtSession(plan, options or OrtOptions())


def _on_host(value: Array | Tensor) -> Tensor:
    """A tensor of ONNX Runtime: its own as it is, an array sharing memory, another by a copy."""
    if isinstance(value, onnxruntime.OrtValue):
        return cast(Tensor, value)
    array = value if isinstance(value, np.ndarray) else value.numpy()
    return cast(Tensor, onnxruntime.OrtValue.ortvalue_from_numpy(array))


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
