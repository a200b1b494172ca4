"""What is asked of cuda-python: its names are real, its errors become ours."""

import ast
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.runtime import cuda
from vr_trt.runtime.cuda import CudaDevice

SUCCESS, NO_MEMORY, OTHER = range(3)


def names_used(module: str) -> set[str]:
    """Each X of `module.X` and `module.X.Y`, as "X" and "X.Y"."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(cuda))):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if text.startswith(f"{module}."):
            found.add(text.removeprefix(f"{module}."))
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "some"),
    [
        ("self._cuda", "cuda.bindings.runtime", "cudaMemcpyKind.cudaMemcpyHostToDevice"),
        ("self._driver", "cuda.bindings.driver", "cuuint64_t"),
    ],
)
def test_every_name_is_one_of_the_bindings(ours: str, theirs: str, some: str) -> None:
    runtime = pytest.importorskip(theirs)
    used = names_used(ours)
    assert some in used
    for name in used:
        found: Any = runtime
        for part in name.split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)


def device_that_answers(error: int) -> CudaDevice:
    device = CudaDevice.__new__(CudaDevice)
    device._cuda = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=SUCCESS, cudaErrorMemoryAllocation=NO_MEMORY),
        cudaMallocAsync=lambda size, stream: (error, 256),
        cudaFreeAsync=lambda address, stream: (error,),
        cudaGetErrorString=lambda error: (SUCCESS, b"unspecified launch failure"),
    )
    return device


def test_answers_and_errors() -> None:
    assert device_that_answers(SUCCESS).allocate(16, 1) == 256
    device_that_answers(SUCCESS).free(256, 1)
    with pytest.raises(MemoryBudgetError, match="smaller profile"):
        device_that_answers(NO_MEMORY).allocate(16, 1)
    with pytest.raises(ModelError, match="unspecified launch failure"):
        device_that_answers(OTHER).free(256, 1)


def test_without_a_driver_there_is_one_line() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaGetDeviceCount()[0] == runtime.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelError, match="CUDA failed: .*driver"):
        CudaDevice()
