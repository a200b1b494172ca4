"""Every call to CUDA's runtime, made through the real bindings: without a driver each one fails, but
what it was given has been converted by then, so that a wrong kind of argument shows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings.runtime")

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import ModelError
from vr_trt.runtime import cuda
from vr_trt.runtime.cuda import CudaDevice
from vr_trt.runtime.region import Region

pytestmark = pytest.mark.skipif(present_gpu() is not None, reason="a GPU would do it")
ADDRESS, STREAM, EVENT, GRAPH = 4096, 8, 16, 24


class Answers(CudaDevice):
    """Takes every answer for a success, and keeps what was answered."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        super().__init__()

    def _done(self, answer: Sequence[Any]) -> Any:
        self.codes.append(answer[0].name)
        return ADDRESS if len(answer) > 1 else None


def locked() -> cuda._PageLocked:
    memory = cuda._PageLocked.__new__(cuda._PageLocked)
    memory.address = ADDRESS
    return memory


VALUES = np.zeros(16, np.float32)
REGION = Region(ADDRESS, "bf16", 2, 3, 4)
CALLS: dict[str, Callable[[CudaDevice], object]] = {
    "stream": lambda d: d.stream(),
    "synchronize": lambda d: d.synchronize(STREAM),
    "destroy_stream": lambda d: d.destroy_stream(STREAM),
    "allocate": lambda d: d.allocate(100, STREAM),
    "free": lambda d: d.free(ADDRESS, STREAM),
    "copy_in": lambda d: d.copy_in(ADDRESS, VALUES, STREAM),
    "copy_out": lambda d: d.copy_out(VALUES, ADDRESS, STREAM),
    "event": lambda d: (d.event(), d.event(timed=True)),
    "destroy_event": lambda d: d.destroy_event(EVENT),
    "record": lambda d: d.record(EVENT, STREAM),
    "wait": lambda d: d.wait(STREAM, EVENT),
    "wait_for": lambda d: d.wait_for(EVENT),
    "passed": lambda d: d.passed(EVENT),
    "milliseconds": lambda d: d.milliseconds(EVENT, EVENT),
    "unlock": lambda d: d.unlock(locked()),
    "upload": lambda d: d.upload(ADDRESS, locked(), 16, STREAM),
    "download": lambda d: d.download(locked(), ADDRESS, 16, STREAM),
    "move": lambda d: d.move(REGION, REGION, STREAM),
    "begin_capture": lambda d: d.begin_capture(STREAM),
    "end_capture": lambda d: d.end_capture(STREAM),
    "launch": lambda d: d.launch(GRAPH, STREAM),
    "destroy_graph": lambda d: d.destroy_graph(GRAPH),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_bindings_take_what_they_are_given(name: str) -> None:
    device = Answers()
    made = len(device.codes)
    CALLS[name](device)
    answers = device.codes[made:]
    assert answers and "cudaSuccess" not in answers


def test_page_locked_memory_is_asked_for() -> None:
    """By itself: what is at the address that is answered would be read."""
    runtime = Answers()._cuda
    error, address = runtime.cudaHostAlloc(64, runtime.cudaHostAllocDefault)
    assert error.name != "cudaSuccess" and not address


def test_without_a_driver_it_is_one_line() -> None:
    with pytest.raises(ModelError, match="CUDA failed: .*; see vr-trt doctor") as caught:
        CudaDevice()
    assert "\n" not in str(caught.value)
