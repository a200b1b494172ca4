"""In place of TensorRT's module, where there is no GPU: its plans are ONNX graphs, run on the CPU.

Only what `runtime/tensorrt_session.py` uses, under the names that another test holds to the real
bindings. Work happens in the order of a `RecordedDevice`'s stream.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tests.recorded_device import RecordedDevice

ALIGNMENT = 256
Sizes = Mapping[str, int]


class Severity(IntEnum):
    ERROR = 1
    INFO = 3


class ILogger:
    Severity = Severity


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    USER_MANAGED = 2


class DataType(Enum):
    FLOAT = np.dtype("float32")
    HALF = np.dtype("float16")
    UINT8 = np.dtype("uint8")


class Engine:
    streamable_weights_size = 0

    def __init__(self, content: bytes, device: RecordedDevice, sizes: Sizes, scratch: int) -> None:
        graph = onnx.load_from_string(content).graph
        self.session = onnxruntime.InferenceSession(content)
        self.device, self.device_memory_size_v2 = device, scratch
        self.inputs = {v.name: zeros(v, sizes) for v in graph.input}
        self.outputs = dict(
            zip(
                [v.name for v in graph.output],
                self.session.run(None, self.inputs),
                strict=True,
            )
        )
        self._all: dict[str, NDArray[Any]] = {**self.inputs, **self.outputs}
        self.num_io_tensors = len(self._all)

    def get_tensor_name(self, i: int) -> str:
        return list(self._all)[i]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._all[name].shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self._all[name].dtype)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> "Context | None":
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._stream: int | None = None

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % ALIGNMENT == 0
        self._scratch = memory, size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, device, addresses = self._engine, self._engine.device, dict(self._addresses)
        assert self._scratch[1] >= engine.device_memory_size_v2
        assert self._stream in (None, stream_handle), "a context works on two streams"
        self._stream = stream_handle

        def work() -> None:
            read = {
                name: device.read(addresses[name], x.nbytes).view(x.dtype).reshape(x.shape).copy()
                for name, x in engine.inputs.items()
            }
            results = engine.session.run(list(engine.outputs), read)
            for name, result in zip(engine.outputs, results, strict=True):
                device.write(addresses[name], np.ascontiguousarray(result).tobytes())

        reads = [addresses[name] for name in engine.inputs]
        writes = [self._scratch[0], *(addresses[name] for name in engine.outputs)]
        device.enqueue(stream_handle, "execute", work, reads, writes)
        return True


def library(
    device: RecordedDevice,
    sizes: Sizes,
    scratch: int = 1000,
    pixels: Mapping[str, Sizes] = MappingProxyType({}),
) -> Any:
    """The module; the graphs' symbols have `sizes`, every engine asks for `scratch` bytes.

    `pixels`: the sizes of the pixel graphs, as `to_model` and `to_video`.
    """

    class Runtime:
        def __init__(self, log: Any) -> None:
            self._log = log

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            try:
                graph = onnx.load_from_string(content).graph.name
                own = pixels.get("_".join(graph.split("_")[:2]))
                return Engine(content, device, own or sizes_of(graph, sizes), scratch)
            except DecodeError as error:
                self._log.log(Severity.ERROR, f"no plan:\n{error}")
                return None

    module: Any = ModuleType("tensorrt_rtx")
    module.ILogger, module.Runtime = ILogger, Runtime
    module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    return module


def sizes_of(graph: str, sizes: Sizes) -> dict[str, int]:
    """Of the fake model's stages, whose graphs take any number of latents, and features for x."""
    window, step = sizes.get("window", 6), sizes.get("step", 1)
    latents = {"generator": window, "decode_start": 2, "decode_coarse_start": 2}.get(graph, step)
    latents = 1 if graph.endswith("_image") else latents
    features = {"H": sizes["H2"], "W": sizes["W2"]} if "_coarse_" in graph else {}
    return {**sizes, "T": latents, **features}


def zeros(value: onnx.ValueInfoProto, sizes: Sizes) -> NDArray[Any]:
    tensor = value.type.tensor_type
    shape = [d.dim_value or sizes[d.dim_param] for d in tensor.shape.dim]
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
