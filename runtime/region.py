"""Parts of a device's memory: rows of equal length, and the code values of a plane."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True, slots=True)
class Region:
    """`rows` stretches of `columns` items each, whose starts are `pitch` items apart."""

    address: int
    kind: str  # of an item; see runtime/device_tensor.py
    rows: int
    columns: int
    pitch: int


def whole(address: int, sizes: Sequence[int], kind: str) -> Region:
    """A contiguous tensor."""
    items = prod(sizes)
    return Region(address, kind, 1, items, items)


def frames(
    address: int,
    sizes: Sequence[int],  # [1, C, T, h, w] of the tensor
    kind: str,
    item_bytes: int,
    part: range,  # of its T frames or latents
) -> Region:
    """Some frames of all channels of a tensor."""
    _, channels, count, height, width = sizes
    if not 0 <= part.start <= part.stop <= count:
        raise ValueError(f"{part} is not within {count} frames")
    frame = height * width
    start = address + part.start * frame * item_bytes
    return Region(start, kind, channels, len(part) * frame, count * frame)


@dataclass(frozen=True, slots=True)
class Grid:
    """Code values of a plane, wherever they lie: items evenly apart in both directions."""

    address: int  # of the first row's first item
    kind: str  # uint8 or uint16
    rows: int
    columns: int
    row_step: int  # items from one row to the next; may be negative, as the next
    column_step: int = 1

    def turned(self, rotation: int, mirrored: bool) -> "Grid":
        """As it is to be looked at: `rotation` degrees clockwise, then left and right exchanged."""
        grid = self
        for _ in range(rotation // 90):
            grid = Grid(
                grid._at(grid.rows - 1, 0),
                grid.kind,
                rows=grid.columns,
                columns=grid.rows,
                row_step=grid.column_step,
                column_step=-grid.row_step,
            )
        if mirrored:
            start = grid._at(0, grid.columns - 1)
            grid = replace(grid, address=start, column_step=-grid.column_step)
        return grid

    def _at(self, row: int, column: int) -> int:
        items = row * self.row_step + column * self.column_step
        return self.address + items * (1 if self.kind == "uint8" else 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Which pixels stand for each cell of a grid of cells; indices in int32 on a device."""

    rows: int  # address of [row_cells, row_samples]
    columns: int  # address of [column_cells, column_samples]
    row_cells: int
    row_samples: int
    column_cells: int
    column_samples: int
