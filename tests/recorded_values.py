"""What a recorded device does with values: copies, conversions and our own kernels, by numpy."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from vr_trt.runtime.device_tensor import BF16, from_kind, item_bytes, to_kind
from vr_trt.runtime.region import Grid, Region, Samples


class Values:
    """Part of `tests.recorded_device.RecordedDevice`."""

    enqueue: Callable[..., None]
    read: Callable[[int, int], NDArray[np.uint8]]
    allocation: Callable[[int], tuple[NDArray[np.uint8], int]]
    asked: list[str]

    def use_in_thread(self) -> None:
        self.asked.append("use_in_thread")

    def move(self, to: Region, source: Region, stream: int) -> None:
        assert (to.rows, to.columns) == (source.rows, source.columns)

        def work() -> None:
            values = self._items(source)
            if to.kind != source.kind:
                values = to_kind(from_kind(values, source.kind), to.kind)
            self._items(to)[:] = values

        name = "move" if to.kind == source.kind else "convert"
        self.enqueue(stream, name, work, reads=[source.address], writes=[to.address])

    def blend(self, to: Region, older: Region, newer: Region, share: float, stream: int) -> None:
        new = np.float32(share)

        def work() -> None:
            mixed = (1 - new) * self._items(older) + new * self._items(newer)
            self._items(to)[:] = mixed

        self.enqueue(
            stream, "blend", work, reads=[older.address, newer.address], writes=[to.address]
        )

    def place(self, to: Grid, source: Grid, shift: int, stream: int) -> None:
        assert (to.rows, to.columns, to.kind) == (source.rows, source.columns, source.kind)

        def work() -> None:
            values = self.codes(source).astype(np.int64)
            self.codes(to)[:] = values << shift if shift >= 0 else values >> -shift

        self.enqueue(stream, "place", work, [source.address], [to.address])

    def cells(self, to: int, luma: Grid, down: int, samples: Samples, stream: int) -> None:
        def work() -> None:
            rows = self._indices(samples.rows, samples.row_cells * samples.row_samples)
            columns = self._indices(samples.columns, samples.column_cells * samples.column_samples)
            picked = self.codes(luma)[np.ix_(rows, columns)].astype(np.int32) >> down
            cells = samples.row_cells, samples.row_samples
            across = samples.column_cells, samples.column_samples
            sums = picked.reshape(*cells, *across).sum(axis=(1, 3), dtype=np.int32)
            self.read(to, sums.nbytes)[:] = sums.reshape(-1).view(np.uint8)

        reads: Iterable[int] = [luma.address, samples.rows, samples.columns]
        self.enqueue(stream, "cells", work, reads, [to])

    def digest(self, to: int, plane: Grid, weights: int, stream: int) -> None:
        def work() -> None:
            factors = self.read(weights, 8 * plane.columns).view(np.int64)
            sums = self.codes(plane).astype(np.int64) @ factors
            self.read(to, sums.nbytes)[:] = sums.view(np.uint8)

        self.enqueue(stream, "digest", work, [plane.address, weights], [to])

    def codes(self, grid: Grid) -> NDArray[Any]:
        """The code values as they lie there now; within one allocation, to the last of them."""
        memory, at = self.allocation(grid.address)
        size = np.dtype(grid.kind).itemsize
        items = memory[: len(memory) // size * size].view(grid.kind)
        assert at % size == 0
        ends = [
            at // size + row * grid.row_step + column * grid.column_step
            for row in (0, grid.rows - 1)
            for column in (0, grid.columns - 1)
        ]
        assert 0 <= min(ends) and max(ends) < len(items), "code values lie outside of the memory"
        steps = grid.row_step * size, grid.column_step * size
        return as_strided(items[at // size :], (grid.rows, grid.columns), steps)

    def _indices(self, address: int, count: int) -> NDArray[np.int32]:
        return self.read(address, 4 * count).view(np.int32)

    def _items(self, region: Region) -> NDArray[Any]:
        size = item_bytes(region.kind)
        items = (region.rows - 1) * region.pitch + region.columns
        content = self.read(region.address, items * size)
        values = content.view(np.uint16 if region.kind == BF16 else region.kind)
        shape = region.rows, region.columns
        return np.lib.stride_tricks.as_strided(values, shape, (region.pitch * size, size))
