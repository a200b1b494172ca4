"""Our kernels between the stages, compiled ahead of time: what a copy cannot do.

PTX that ships in the package (`vr_trt.kernels.between`, `.code_values`), loaded by the driver: neither Triton nor
PyTorch is needed. Never executed by us: no GPU was at hand; the kernels themselves run in Triton's
interpreter, and their PTX is assembled for every chip, in tests.
"""

import ctypes
import re
from pathlib import Path
from typing import Any

from vr_trt.errors import ModelError
from vr_trt.runtime.region import Grid, Region, Samples

FOLDER = Path(__file__).parent.with_name("kernels") / "ptx"
BLOCK = 1024  # items of a program, as compiled
_WARPS = 4
_SHORT = {"float32": "fp32", "float16": "fp16", "bf16": "bf16", "uint16": "u16", "uint8": "u8"}
_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
_PLANE = (_POINTER, _INTEGER, _INTEGER)  # a grid's address and steps


class Kernels:
    """Launches by the driver's API; a kernel is loaded when it is first asked for."""

    def __init__(self, driver: Any) -> None:
        """`driver`: the module cuda.bindings.driver."""
        self._driver = driver
        self._loaded: dict[str, Any] = {}

    def convert(self, to: Region, source: Region, stream: int) -> None:
        """As many items in another kind; ModelError for kinds that have no kernel."""
        name = f"convert_{_SHORT.get(source.kind, source.kind)}_{_SHORT.get(to.kind, to.kind)}"
        values = (to.address, to.pitch, source.address, source.pitch, source.columns)
        kinds = (_POINTER, _INTEGER, _POINTER, _INTEGER, _INTEGER)
        self._launch(name, (source.columns, source.rows), (values, kinds), stream)

    def blend(self, to: Region, older: Region, newer: Region, share: float, stream: int) -> None:
        """(1 - share) older + share newer of contiguous float32."""
        values = (to.address, older.address, newer.address, share, to.columns)
        kinds = (_POINTER, _POINTER, _POINTER, _REAL, _INTEGER)
        self._launch("blend", (to.columns, 1), (values, kinds), stream)

    def place(self, to: Grid, source: Grid, shift: int, stream: int) -> None:
        """Code values into another arrangement, shifted up, or down where `shift` is negative."""
        values = (*_steps(to), *_steps(source), max(shift, 0), max(-shift, 0), to.columns)
        kinds = (*_PLANE, *_PLANE, _INTEGER, _INTEGER, _INTEGER)
        self._launch(f"place_{_SHORT[to.kind]}", (to.columns, to.rows), (values, kinds), stream)

    def cells(self, to: int, luma: Grid, down: int, samples: Samples, stream: int) -> None:
        """Sums, int32, of the luma's samples in each cell, shifted down."""
        at = (samples.rows, samples.columns)
        counts = (samples.row_samples, samples.column_samples, samples.column_cells)
        values = (to, *_steps(luma), down, *at, *counts)
        kinds = (_POINTER, *_PLANE, _INTEGER, _POINTER, _POINTER, _INTEGER, _INTEGER, _INTEGER)
        name = f"cells_{_SHORT[luma.kind]}"
        self._launch(name, (1, samples.row_cells), (values, kinds), stream)

    def digest(self, to: int, plane: Grid, weights: int, stream: int) -> None:
        """Sums, int64, of each row by the weights."""
        values = (to, *_steps(plane), weights, plane.columns)
        kinds = (_POINTER, *_PLANE, _POINTER, _INTEGER)
        self._launch(f"digest_{_SHORT[plane.kind]}", (1, plane.rows), (values, kinds), stream)

    def load_all(self, sm: int) -> None:
        """Load what runs on the chip now, rather than when it is first launched."""
        for path in sorted(FOLDER.glob("*.ptx")):
            target = re.search(r"^\.target sm_(\d+)", path.read_text("ascii"), re.MULTILINE)
            if target is not None and int(target[1]) <= sm:
                self._function(path.stem)

    def _launch(
        self, name: str, size: tuple[int, int], arguments: tuple[Any, Any], stream: int
    ) -> None:
        grid = -(-size[0] // BLOCK), size[1], 1
        block = 32 * _WARPS, 1, 1
        function = self._function(name)
        self._done(
            self._driver.cuLaunchKernel(function, *grid, *block, 0, stream, arguments, 0), name
        )

    def _function(self, name: str) -> Any:
        if name not in self._loaded:
            path = FOLDER / f"{name}.ptx"
            try:
                source = path.read_bytes()
            except OSError:
                raise ModelError(
                    f"there is no kernel {name}: choose another precision, or report this"
                ) from None
            module = self._done(self._driver.cuModuleLoadData(source + b"\0"), name)
            entry = name.partition("_")[0].encode() + b"_kernel"
            self._loaded[name] = self._done(self._driver.cuModuleGetFunction(module, entry), name)
        return self._loaded[name]

    def _done(self, answer: tuple[Any, ...], name: str) -> Any:
        error, *results = answer
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise ModelError(f"the kernel {name} failed: {error}; update the driver")
        return results[0] if results else None


def _steps(grid: Grid) -> tuple[int, int, int]:
    return grid.address, grid.row_step, grid.column_step
