"""What is asked of cuda-python: its names are real, its errors become ours."""

import ast
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.runtime import cuda, cuda_kernels
from vr_trt.runtime.cuda import CudaDevice
from vr_trt.runtime.cuda_kernels import Kernels
from vr_trt.runtime.region import Grid, Region, Samples, frames

SUCCESS, NO_MEMORY, OTHER = range(3)


def names_used(module: str, source: ModuleType = cuda) -> set[str]:
    """Each X of `module.X` and `module.X.Y`, as "X" and "X.Y"."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(source))):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if text.startswith(f"{module}."):
            found.add(text.removeprefix(f"{module}."))
    return found


@pytest.mark.parametrize(
    ("source", "ours", "theirs", "some"),
    [
        (cuda, "self._cuda", "cuda.bindings.runtime", "cudaMemcpyKind.cudaMemcpyHostToDevice"),
        (cuda, "self._driver", "cuda.bindings.driver", "cuuint64_t"),
        (cuda_kernels, "self._driver", "cuda.bindings.driver", "cuLaunchKernel"),
    ],
)
def test_every_name_is_one_of_the_bindings(
    source: ModuleType, ours: str, theirs: str, some: str
) -> None:
    runtime = pytest.importorskip(theirs)
    used = names_used(ours, source)
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


class Driver:
    """What our kernels ask of the driver, written down."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.launches: list[tuple[Any, ...]] = []

    def cuModuleLoadData(self, source: bytes) -> tuple[int, bytes]:
        assert source.endswith(b"\0")
        return 0, source

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[int, bytes]:
        assert b".entry " + name + b"(" in module
        self.entries.append(name)
        return 0, name

    def cuLaunchKernel(self, *arguments: Any) -> tuple[int]:
        self.launches.append(arguments)
        return (0,)


def test_kernels_are_launched_with_their_own_arguments() -> None:
    driver = Driver()
    kernels = Kernels(driver)
    part = frames(4096, (1, 16, 6, 50, 60), "float16", 2, range(2, 3))
    assert part == Region(4096 + 2 * 3000 * 2, "float16", 16, 3000, 18000)
    to = Region(512, "float32", 16, 3000, 3000)
    kernels.convert(to, part, stream=7)
    kernels.blend(to, to, to, 0.25, stream=8)
    convert, blend = driver.launches
    assert convert[:9] == (b"convert_kernel", 3, 16, 1, 128, 1, 1, 0, 7)  # grid, block, shared
    assert convert[9][0] == (512, 3000, part.address, 18000, 3000)
    assert blend[0] == b"blend_kernel" and blend[9][0] == (512, 512, 512, 0.25, 3000)
    assert [len(call[9][0]) == len(call[9][1]) for call in driver.launches] == [True, True]
    with pytest.raises(ModelError, match="no kernel convert_int8_fp32"):
        kernels.convert(to, Region(0, "int8", 16, 3000, 3000), stream=7)


def test_code_values_are_launched_with_their_own_arguments() -> None:
    driver = Driver()
    kernels = Kernels(driver)
    luma = Grid(4096, "uint16", 2000, 1100, 1280)
    kernels.place(Grid(64, "uint16", 2000, 1100, 1100), luma.turned(180, False), -6, stream=1)
    kernels.place(luma, Grid(64, "uint16", 2000, 1100, 1100), 6, stream=2)
    at = Samples(rows=1, columns=2, row_cells=36, row_samples=4, column_cells=64, column_samples=3)
    kernels.cells(512, luma, 6, at, stream=3)
    kernels.digest(512, luma, 16, stream=4)
    turned, straight, cells, digest = driver.launches
    last = 4096 + 2 * (1999 * 1280 + 1099)
    assert turned[:9] == (b"place_kernel", 2, 2000, 1, 128, 1, 1, 0, 1)
    assert turned[9][0] == (64, 1100, 1, last, -1280, -1, 0, 6, 1100)
    assert straight[9][0] == (4096, 1280, 1, 64, 1100, 1, 6, 0, 1100)
    assert cells[:4] == (b"cells_kernel", 1, 36, 1)
    assert cells[9][0] == (512, 4096, 1280, 1, 6, 1, 2, 4, 3, 64)
    assert digest[:4] == (b"digest_kernel", 1, 2000, 1)
    assert digest[9][0] == (512, 4096, 1280, 1, 16, 1100)
    assert all(len(call[9][0]) == len(call[9][1]) for call in driver.launches)


@pytest.mark.parametrize(("sm", "count"), [(75, 11), (89, 15)])
def test_kernels_of_the_chip_are_loaded_ahead(sm: int, count: int) -> None:
    driver = Driver()
    kernels = Kernels(driver)
    kernels.load_all(sm)
    assert len(driver.entries) == count  # bf16 is for sm_80 and newer
    row = Region(0, "float32", 1, 8, 8)
    kernels.blend(row, row, row, 0.5, stream=1)
    assert len(driver.entries) == count
