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
from vr_trt.runtime.device_tensor import BF16, DeviceTensor, OnDevice
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
    asks for, serves all of them. Those of another stream have a piece of their own.
    """

    library: Any  # the module `tensorrt` or `tensorrt_rtx`
    device: Device
    stream: int
    activations: dict[int, DeviceTensor] = field(default_factory=dict)  # by stream
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.log = open_log(self.library)

    def activation_memory(self, size: int, stream: int) -> DeviceTensor:
        """Memory of `size` bytes or more; MemoryBudgetError where the device has no room."""
        memory = self.activations.get(stream)
        if memory is None or memory.shape()[0] < size:
            if stream != self.stream:
                self.device.synchronize(stream)
            self.activations.pop(stream, None)
            del memory  # given back first: there may be no room for both
            memory = DeviceTensor(self.device, self.stream, (size,), "uint8")
            self.activations[stream] = memory
            if stream != self.stream:  # which does not wait for the one that took the memory
                self.device.synchronize(self.stream)
        return memory

    def only_own_stream(self) -> None:
        """Give the memory of other streams' activations back; nothing runs there any more."""
        for stream in self.activations.keys() - {self.stream}:
            del self.activations[stream]


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
    capturable = True
    places: Mapping[str, DeviceTensor] = MappingProxyType(
        {}
    )  # it reads and writes where it is told

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

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        return MappingProxyType(self._shapes)

    @property
    def kinds(self) -> Mapping[str, str]:
        return MappingProxyType(self._kinds)

    def bind(self, name: str, value: Array | Tensor) -> None:
        """An output may be bound to memory of the device of its own kind."""
        if name not in self._shapes or (name in self._outputs and not self._fits(name, value)):
            raise ModelError(
                f"{self._plan} has no input {name!r}: this is not the engine that was expected"
            )
        given = tuple(value.shape if isinstance(value, np.ndarray) else value.shape())
        if given != self._shapes[name]:
            raise ModelError(
                f"{self._plan} takes {name} of {list(self._shapes[name])}, not of {list(given)}: "
                "it was built for another size"
            )
        self._bound[name] = value

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        """On the run's own stream if not said: only memory of that one's order is taken.

        On any stream no memory is, once a stage has been called there, if all that is bound lies
        on the device.
        """
        bound, self._bound = self._bound, {}
        stream = self._gpu.stream if stream is None else stream
        if self._cancelled:
            raise InterruptedRun(f"{self._plan.parent.name} was stopped")
        if missing := sorted(set(self._inputs) - set(bound)):
            raise ModelError(f"{self._plan} was called without {', '.join(missing)}: bind them")
        inputs = {name: self._on_device(name, bound[name]) for name in self._inputs}
        outputs = {name: self._output(name, bound) for name in self._outputs}
        needed = int(self._engine.device_memory_size_v2)
        scratch = self._gpu.activation_memory(needed + _ALIGNMENT, stream)
        self._context.set_device_memory(_aligned(scratch.address), needed)
        for name, tensor in {**inputs, **outputs}.items():
            self._context.set_tensor_address(name, tensor.address)
        if not self._context.execute_async_v3(stream):
            raise ModelError(
                f"{self._plan.parent.name} failed: {first_error(self._gpu.log)}; build it again"
            )
        return dict(outputs)

    def cancel(self) -> None:
        self._cancelled = True

    def _fits(self, name: str, value: Array | Tensor) -> bool:
        return isinstance(value, OnDevice) and value.kind == self._kinds[name]

    def _on_device(self, name: str, value: Array | Tensor) -> OnDevice:
        if isinstance(value, OnDevice) and value.kind == self._kinds[name]:
            return value
        tensor = self._empty(name)
        tensor.put(value if isinstance(value, np.ndarray) else value.numpy())
        return tensor

    def _output(self, name: str, bound: Mapping[str, Array | Tensor]) -> OnDevice:
        value = bound.get(name)
        return value if isinstance(value, OnDevice) else self._empty(name)

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
