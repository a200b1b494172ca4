"""What the runtime asks of a CUDA device: streams, memory in a stream's order, copies.

Never executed by us: no GPU was at hand. A test holds every name to the real bindings, and the
sessions that use it run in tests on a device that records what was asked of it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.runtime.session import Array


class Device(Protocol):
    """One GPU. Addresses are integers; what is enqueued on a stream happens in its order."""

    def stream(self) -> int:
        """A new stream that does not wait for the default one."""

    def synchronize(self, stream: int) -> None:
        """Let the host wait until all that was enqueued on `stream` is done."""

    def allocate(self, size: int, stream: int) -> int:
        """`size` bytes, in order with `stream`; MemoryBudgetError where there are none left."""

    def free(self, address: int, stream: int) -> None:
        """Give memory back, in order with `stream`: what was enqueued before may still use it."""

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        """A contiguous array to the device; page-locked, it must not change until that is done."""

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        """From the device into a contiguous array; its content is there once the stream is."""


class CudaDevice:
    """The first GPU that is visible, by NVIDIA's cuda-python."""

    def __init__(self) -> None:
        """ModelError where the driver has none or is too old, or cuda-python is missing."""
        try:
            from cuda.bindings import driver, runtime
        except ModuleNotFoundError:
            raise ModelError(
                "cuda-python is not installed: pip install 'vr-trt[rtx]' or 'vr-trt[tensorrt]'"
            ) from None
        self._cuda: Any = runtime
        self._driver: Any = driver
        self._done(runtime.cudaSetDevice(0))
        self._keep_freed_memory()

    def stream(self) -> int:
        flags = self._cuda.cudaStreamNonBlocking
        return int(self._done(self._cuda.cudaStreamCreateWithFlags(flags)))

    def synchronize(self, stream: int) -> None:
        self._done(self._cuda.cudaStreamSynchronize(stream))

    def allocate(self, size: int, stream: int) -> int:
        return int(self._done(self._cuda.cudaMallocAsync(size, stream)))

    def free(self, address: int, stream: int) -> None:
        self._done(self._cuda.cudaFreeAsync(address, stream))

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        host = array.ctypes.data
        self._done(self._cuda.cudaMemcpyAsync(address, host, array.nbytes, kind, stream))

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        host = array.ctypes.data
        self._done(self._cuda.cudaMemcpyAsync(host, address, array.nbytes, kind, stream))

    def _keep_freed_memory(self) -> None:
        """The pool keeps what was freed, so that the next call's memory costs nothing."""
        pool = self._done(self._cuda.cudaDeviceGetDefaultMemPool(0))
        threshold = self._cuda.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        everything = self._driver.cuuint64_t(np.iinfo(np.uint64).max)
        self._done(self._cuda.cudaMemPoolSetAttribute(pool, threshold, everything))

    def _done(self, answer: Sequence[Any]) -> Any:
        """A call's result; its error as one of ours."""
        error, *results = answer
        if error == self._cuda.cudaError_t.cudaSuccess:
            return results[0] if results else None
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise MemoryBudgetError("out of memory on the GPU: choose a smaller profile")
        said = self._cuda.cudaGetErrorString(error)[1]
        text = said.decode() if isinstance(said, bytes) else str(said)
        raise ModelError(f"CUDA failed: {text}; see vr-trt doctor, and update the driver")
