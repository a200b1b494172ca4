"""What the runtime asks of a CUDA device: streams, memory in a stream's order, copies.

Never executed by us: no GPU was at hand. A test holds every name to the real bindings, and the
sessions that use it run in tests on a device that records what was asked of it.
"""

import ctypes
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.runtime.cuda_kernels import Kernels
from vr_trt.runtime.region import Grid, Region, Samples
from vr_trt.runtime.session import Array


class PageLocked(Protocol):
    """Memory of the host that the device reads and writes by itself."""

    def array(self) -> NDArray[np.uint8]:
        """All of it, for the host to use now: the device must be done with it."""


class Device(Protocol):
    """One GPU. Addresses are integers; what is enqueued on a stream happens in its order."""

    def use_in_thread(self) -> None:
        """Make the GPU's context the calling thread's, for libraries that take the one they find."""

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

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back, on which nothing runs any more."""

    def event(self, *, timed: bool = False) -> int:
        """A new event."""

    def destroy_event(self, event: int) -> None:
        """Give an event back."""

    def record(self, event: int, stream: int) -> None:
        """Let `event` mark what has been enqueued on `stream` by now."""

    def wait(self, stream: int, event: int) -> None:
        """Let what is enqueued on `stream` from now on come after the mark of `event`."""

    def wait_for(self, event: int) -> None:
        """Let the host wait for what `event` marks."""

    def passed(self, event: int) -> bool:
        """Whether what `event` marks is done."""

    def milliseconds(self, start: int, end: int) -> float:
        """Between two timed events that have passed."""

    def page_locked(self, size: int) -> PageLocked:
        """`size` bytes of the host's memory; MemoryBudgetError where there are none left."""

    def unlock(self, memory: PageLocked) -> None:
        """Give such memory back."""

    def upload(self, address: int, memory: PageLocked, size: int, stream: int) -> None:
        """The first `size` bytes to the device."""

    def download(self, memory: PageLocked, address: int, size: int, stream: int) -> None:
        """From the device into the first `size` bytes."""

    def move(self, to: Region, source: Region, stream: int) -> None:
        """Copy as many items, converted (to the nearest even) where the kinds differ."""

    def place(self, to: Grid, source: Grid, shift: int, stream: int) -> None:
        """Copy as many code values, shifted up by so many bits, or down where `shift` < 0."""

    def cells(self, to: int, luma: Grid, down: int, samples: Samples, stream: int) -> None:
        """Put each cell's sum of luma samples, shifted down, to [rows, columns] in int32."""

    def digest(self, to: int, plane: Grid, weights: int, stream: int) -> None:
        """Put each row's sum by the weights [columns] to [rows]; all in int64, which wraps."""

    def blend(self, to: Region, older: Region, newer: Region, share: float, stream: int) -> None:
        """(1 - share) older + share newer, each step rounded to float32; contiguous float32."""

    def prepare(self) -> None:
        """Load now what would be loaded when it is first used."""

    def begin_capture(self, stream: int) -> None:
        """Collect what is enqueued on `stream` from now on in place of doing it."""

    def end_capture(self, stream: int) -> int:
        """What was collected, as a graph."""

    def launch(self, graph: int, stream: int) -> None:
        """Do all of a graph, in order with `stream`."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""


class _PageLocked:
    """A `PageLocked` of CUDA."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        memory = (ctypes.c_uint8 * size).from_address(address)
        self._array = np.frombuffer(memoryview(memory), np.uint8)

    def array(self) -> NDArray[np.uint8]:
        return self._array


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
        self.use_in_thread()
        self._keep_freed_memory()

    def use_in_thread(self) -> None:
        self._done(self._cuda.cudaSetDevice(0))

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

    def destroy_stream(self, stream: int) -> None:
        self._done(self._cuda.cudaStreamDestroy(stream))

    def event(self, *, timed: bool = False) -> int:
        flags = self._cuda.cudaEventDefault if timed else self._cuda.cudaEventDisableTiming
        return int(self._done(self._cuda.cudaEventCreateWithFlags(flags)))

    def destroy_event(self, event: int) -> None:
        self._done(self._cuda.cudaEventDestroy(event))

    def record(self, event: int, stream: int) -> None:
        self._done(self._cuda.cudaEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        self._done(self._cuda.cudaStreamWaitEvent(stream, event, 0))

    def wait_for(self, event: int) -> None:
        self._done(self._cuda.cudaEventSynchronize(event))

    def passed(self, event: int) -> bool:
        answer = self._cuda.cudaEventQuery(event)
        if answer[0] == self._cuda.cudaError_t.cudaErrorNotReady:
            return False
        self._done(answer)
        return True

    def milliseconds(self, start: int, end: int) -> float:
        return float(self._done(self._cuda.cudaEventElapsedTime(start, end)))

    def page_locked(self, size: int) -> PageLocked:
        flags = self._cuda.cudaHostAllocDefault
        return _PageLocked(int(self._done(self._cuda.cudaHostAlloc(size, flags))), size)

    def unlock(self, memory: PageLocked) -> None:
        assert isinstance(memory, _PageLocked)
        self._done(self._cuda.cudaFreeHost(memory.address))

    def upload(self, address: int, memory: PageLocked, size: int, stream: int) -> None:
        assert isinstance(memory, _PageLocked)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._done(self._cuda.cudaMemcpyAsync(address, memory.address, size, kind, stream))

    def download(self, memory: PageLocked, address: int, size: int, stream: int) -> None:
        assert isinstance(memory, _PageLocked)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._done(self._cuda.cudaMemcpyAsync(memory.address, address, size, kind, stream))

    def move(self, to: Region, source: Region, stream: int) -> None:
        if to.kind != source.kind:
            self._kernels.convert(to, source, stream)
            return
        size = 2 if to.kind == "bf16" else np.dtype(to.kind).itemsize
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._done(
            self._cuda.cudaMemcpy2DAsync(
                to.address,
                to.pitch * size,
                source.address,
                source.pitch * size,
                source.columns * size,
                source.rows,
                kind,
                stream,
            )
        )

    def place(self, to: Grid, source: Grid, shift: int, stream: int) -> None:
        self._kernels.place(to, source, shift, stream)

    def cells(self, to: int, luma: Grid, down: int, samples: Samples, stream: int) -> None:
        self._kernels.cells(to, luma, down, samples, stream)

    def digest(self, to: int, plane: Grid, weights: int, stream: int) -> None:
        self._kernels.digest(to, plane, weights, stream)

    def blend(self, to: Region, older: Region, newer: Region, share: float, stream: int) -> None:
        self._kernels.blend(to, older, newer, share, stream)

    def prepare(self) -> None:
        gpu = present_gpu()
        self._kernels.load_all(gpu.sm if gpu else 0)

    def begin_capture(self, stream: int) -> None:
        # What other threads ask of the device meanwhile does not spoil the capture.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._done(self._cuda.cudaStreamBeginCapture(stream, mode))

    def end_capture(self, stream: int) -> int:
        graph = self._done(self._cuda.cudaStreamEndCapture(stream))
        ready = int(self._done(self._cuda.cudaGraphInstantiate(graph, 0)))
        self._done(self._cuda.cudaGraphDestroy(graph))
        return ready

    def launch(self, graph: int, stream: int) -> None:
        self._done(self._cuda.cudaGraphLaunch(graph, stream))

    def destroy_graph(self, graph: int) -> None:
        self._done(self._cuda.cudaGraphExecDestroy(graph))

    @cached_property
    def _kernels(self) -> Kernels:
        return Kernels(self._driver)

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


@cache
def cuda_device() -> Device:
    """One for all films of the triton backend: it keeps the kernels that it has loaded.

    ModelError as for a `CudaDevice`.
    """
    return CudaDevice()
