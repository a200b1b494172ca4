"""Code values of planes on a device: rearranged, sampled and summed.

Video codecs keep chroma interleaved (NV12) and more than 8 bits in the upper ones of 16 (P010); the
networks' pixel graphs take plain planes. Cuts and digests need sums only. All arithmetic is of
integers: the host's own code gives the same bits.

`python -m vr_trt.kernels.code_values` writes the PTX that ships in `kernels/ptx`, as
`kernels/between.py` does.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.aot import CompiledKernel, compile_kernel
from vr_trt.kernels.between import BLOCK, OLDEST, write_ptx

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("u8", "u16")
CELLS = 64  # columns of cells that a program has room for


def place_reference(to: "Tensor", source: "Tensor", up: int, down: int) -> None:
    """`to` [R, C] = `source` [R, C], shifted up and then down by so many bits."""
    to.copy_((source.int() << up) >> down)


@triton.jit
def place_kernel(  # type: ignore[no-untyped-def]
    to,  # [rows, columns], rows `to_row` items apart and columns `to_column`
    to_row,
    to_column,
    source,  # likewise; steps may be negative
    source_row,
    source_column,
    up,
    down,
    columns,
    BLOCK: tl.constexpr,
):
    """Program (i, row): the i-th BLOCK of a row."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1).to(tl.int64)
    inside = column < columns
    at = column.to(tl.int64)
    value = tl.load(source + row * source_row + at * source_column, mask=inside).to(tl.int32)
    value = (value << up) >> down
    tl.store(to + row * to_row + at * to_column, value.to(to.dtype.element_ty), mask=inside)


def cells_reference(
    to: "Tensor",  # [R, C]
    luma: "Tensor",  # [H, W]
    down: int,
    rows: "Tensor",  # [R, samples]
    columns: "Tensor",  # [C, samples]
) -> None:
    """`to` = sums of the luma, shifted down, over each cell's samples."""
    picked = luma.int()[rows.reshape(-1).long()][:, columns.reshape(-1).long()] >> down
    to.copy_(picked.reshape(*rows.shape, *columns.shape).sum(dim=(1, 3)))


@triton.jit
def cells_kernel(  # type: ignore[no-untyped-def]
    to,  # [rows of cells, columns], int32
    luma,
    row_step,
    column_step,
    down,
    rows,  # [rows of cells, row_samples] of the luma, int32
    columns,  # [columns, column_samples]
    row_samples,
    column_samples,
    count,  # of columns
    BLOCK: tl.constexpr,
):
    """Program (0, row): the cells of a row."""
    cell = tl.arange(0, BLOCK)
    row = tl.program_id(1)
    inside = cell < count
    total = tl.zeros([BLOCK], tl.int32)
    for i in range(row_samples):
        line = tl.load(rows + row * row_samples + i).to(tl.int64) * row_step
        for j in range(column_samples):
            column = tl.load(columns + cell * column_samples + j, mask=inside, other=0)
            at = line + column.to(tl.int64) * column_step
            total += tl.load(luma + at, mask=inside, other=0).to(tl.int32) >> down
    tl.store(to + row * count + cell, total, mask=inside)


def digest_reference(to: "Tensor", source: "Tensor", weights: "Tensor") -> None:
    """`to` [R] = sums of each row of `source` [R, C] by `weights` [C], in int64, which wraps."""
    to.copy_((source.long() * weights).sum(dim=1))


@triton.jit
def digest_kernel(  # type: ignore[no-untyped-def]
    to,  # [rows], int64
    source,
    row_step,
    column_step,
    weights,  # [columns], int64
    columns,
    BLOCK: tl.constexpr,
):
    """Program (0, row): one row."""
    row = tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        at = row * row_step + column.to(tl.int64) * column_step
        value = tl.load(source + at, mask=inside, other=0).to(tl.int64)
        total += value * tl.load(weights + column, mask=inside, other=0)
    tl.store(to + row, tl.sum(total))


_SIGNATURES = {
    "place": "to to_row:i32 to_column:i32 source source_row:i32 source_column:i32 "
    "up:i32 down:i32 columns:i32",
    "cells": "to:*i32 source row_step:i32 column_step:i32 down:i32 rows:*i32 columns:*i32 "
    "row_samples:i32 column_samples:i32 count:i32",
    "digest": "to:*i64 source row_step:i32 column_step:i32 weights:*i64 columns:i32",
}


def compiled() -> Iterator[tuple[str, CompiledKernel]]:
    """Every kernel by the name of its file."""
    kernels = {"place": place_kernel, "cells": cells_kernel, "digest": digest_kernel}
    for kind in KINDS:
        for verb, kernel in kernels.items():
            words = (word.partition(":") for word in _SIGNATURES[verb].split())
            types = [given or f"*{kind}" for _, _, given in words]
            signature = dict(zip(kernel.arg_names, types, strict=False))
            constants = {"BLOCK": CELLS if verb == "cells" else BLOCK}
            yield f"{verb}_{kind}", compile_kernel(kernel, signature, constants, OLDEST)


if __name__ == "__main__":
    write_ptx(compiled())
