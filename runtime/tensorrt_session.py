"""Stages on TensorRT and TensorRT-RTX: plans of static shape, on one stream of one GPU.

Never executed by us: no GPU was at hand. The names that are used are held to the real bindings by
a test, and the order of what is enqueued is tested on a device that records it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_trt.engines.tensorrt_network import first_error, open_log
from vr_trt.engines.tensorrt_plan import create_context, load_engine
from vr_trt.errors import InterruptedRun, ModelError
from vr_trt.runtime.cuda import CudaDevice, Device
from vr_trt.runtime.device_tensor import BF16, DeviceTensor
from vr_trt.runtime.session import Array, Tensor

if TYPE_CHECKING:
    import tensorrt as trt

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}  # backend -> module
_KINDS = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": BF16,
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_ALIGNMENT = 256  # bytes, of the activations' memory


@dataclass(kw_only=True, eq=False)
class Gpu:
    """What the sessions of a run share: library, stream, and the memory of activations.

    Stages take turns on one stream, so that one piece of memory, as large as the largest stage
    asks for, serves all of them.
    """

    library: Any  # the module `tensorrt` or `tensorrt_rtx`
    device: Device
    stream: int
    activations: DeviceTensor | None = None
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.log = open_log(self.library)

    def activation_memory(self, size: int) -> DeviceTensor:
        """Memory of `size` bytes or more; MemoryBudgetError where the device has no room."""
        if self.activations is None or self.activations.shape()[0] < size:
            self.activations = None  # given back first: there may be no room for both
            self.activations = DeviceTensor(self.device, self.stream, (size,), "uint8")
        return self.activations


def open_gpu(backend: str, device: Device | None = None) -> Gpu:
    """The GPU as `backend` uses it. ModelError where its library or the GPU is missing."""
    try:
        library = import_module(LIBRARIES[backend])
    except ModuleNotFoundError:
        raise ModelError(
            f"{backend} is not installed: pip install 'vr-trt[{backend.removeprefix('tensorrt-')}]'"
        ) from None
    device = device or CudaDevice()
    return Gpu(library=library, device=device, stream=device.stream())


class TensorRtSession:
    """One engine; a `vr_trt.runtime.session.Session`."""

    on_device = True

    def __init__(self, plan: Path, gpu: Gpu) -> None:
        """Reads `plan`. ModelError for one of another library or GPU, MemoryBudgetError."""
        self._plan, self._gpu = plan, gpu
        engine: trt.ICudaEngine = _load(plan, gpu)
        context: trt.IExecutionContext = create_context(gpu.library, engine)
        self._engine, self._context = engine, context
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._kinds: dict[str, str] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            self._shapes[name] = tuple(self._engine.get_tensor_shape(name))
            self._kinds[name] = _KINDS[self._engine.get_tensor_dtype(name).name]
            is_input = self._engine.get_tensor_mode(name).name == "INPUT"
            (self._inputs if is_input else self._outputs).append(name)
        self._bound: dict[str, Array | Tensor] = {}
        self._cancelled = False

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        return MappingProxyType({name: self._shapes[name] for name in self._inputs})

    @property
    def outputs(self) -> Sequence[str]:
        return tuple(self._outputs)

    def bind(self, name: str, value: Array | Tensor) -> None:
        if name not in self._inputs:
            raise ModelError(f"{self._plan} has no input {name!r}: it is not the engine meant")
        given = tuple(value.shape if isinstance(value, np.ndarray) else value.shape())
        if given != self._shapes[name]:
            raise ModelError(
                f"{self._plan} takes {name} of {list(self._shapes[name])}, not of {list(given)}: "
                "it was built for another size"
            )
        self._bound[name] = value

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        """Always on the run's own stream: its memory is in that stream's order."""
        bound, self._bound = self._bound, {}
        if self._cancelled:
            raise InterruptedRun(f"{self._plan.parent.name} was stopped")
        if missing := sorted(set(self._inputs) - set(bound)):
            raise ModelError(f"{self._plan} was called without {', '.join(missing)}: bind them")
        inputs = {name: self._on_device(name, value) for name, value in bound.items()}
        outputs = {name: self._empty(name) for name in self._outputs}
        needed = int(self._engine.device_memory_size_v2)
        scratch = self._gpu.activation_memory(needed + _ALIGNMENT)
        self._context.set_device_memory(_aligned(scratch.address), needed)
        for name, tensor in {**inputs, **outputs}.items():
            self._context.set_tensor_address(name, tensor.address)
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ModelError(
                f"{self._plan.parent.name} failed: {first_error(self._gpu.log)}; build it again"
            )
        return dict(outputs)

    def cancel(self) -> None:
        self._cancelled = True

    def _on_device(self, name: str, value: Array | Tensor) -> DeviceTensor:
        if isinstance(value, DeviceTensor) and value.kind == self._kinds[name]:
            return value
        tensor = self._empty(name)
        tensor.put(value if isinstance(value, np.ndarray) else value.numpy())
        return tensor

    def _empty(self, name: str) -> DeviceTensor:
        gpu = self._gpu
        return DeviceTensor(gpu.device, gpu.stream, self._shapes[name], self._kinds[name])


def _load(plan: Path, gpu: Gpu) -> "trt.ICudaEngine":
    try:
        return load_engine(gpu.library, plan.read_bytes(), gpu.log)
    except OSError as error:
        raise ModelError(f"cannot read {plan}: {error.strerror}; build it again") from None
    except ModelError as error:
        raise ModelError(f"{plan}: {error} ({first_error(gpu.log)})") from None


def _aligned(address: int) -> int:
    return -(-address // _ALIGNMENT) * _ALIGNMENT
