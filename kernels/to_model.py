"""Planes of a video to the networks' input: chroma to full size, RGB, resize, padding, -1..1.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launch from Python.
Sources: network spec §7.1, 7.2, 7.4; the same arithmetic as the graph `to_model`.

One pass over memory. For F frames of H x W in 4:2:0 to Hp x Wp it reads 1.5 * F*H*W code values
and writes 3 * F*Hp*Wp samples; tiles overlap by the filters' taps, which the cache answers. No
picture in between is stored: a program walks down the source's rows, turns each into RGB once, adds
it to its tile's sums, which stay in registers, and then combines columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import triton
import triton.language as tl

from vr_trt.kernels.bands import Bands, Floats, RowBlocks, bands, own_columns, row_blocks
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_COLUMN_STEP = 16  # outputs: a tile begins where 16-byte writes may
_FEWEST_COLUMNS = 32  # outputs of a tile, if there are so many
_WIDEST = 1024


def to_model_reference(
    y: "Tensor",  # [F, H, W] code values
    u: "Tensor",  # [F, h, w]
    v: "Tensor",  # [F, h, w]
    tables: "ToModelTables",
    shift: int = 0,
) -> "Tensor":  # [3, F, Hp, Wp] float32
    """The conversion by dense matrices, every step stored."""
    import torch

    rows, cols, chroma_rows, chroma_cols = (
        torch.from_numpy(part.matrix()).to(y.device)
        for part in (tables.rows, tables.cols, tables.chroma_rows, tables.chroma_cols)
    )
    matrix = torch.from_numpy(tables.to_rgb).to(y.device)
    y, u, v = (plane.int().bitwise_right_shift(shift).float() for plane in (y, u, v))
    u, v = (chroma_rows @ plane @ chroma_cols.T for plane in (u, v))
    codes = torch.stack((y, u, v)).flatten(1)
    rgb = (matrix[:, :3] @ codes + matrix[:, 3:]).clamp(0, 1).view(3, *y.shape)
    return (rows @ rgb @ cols.T).clamp(0, 1) * 2 - 1


@triton.jit
def to_model_kernel(  # type: ignore[no-untyped-def]
    y, y_frame, y_row, y_pixel,  # [F, H, W] by strides
    u, v, c_frame, c_row, c_pixel,  # [F, h, w] each
    to_rgb,  # [3, 4]
    row_first, row_weights,  # [blocks], [blocks, ROW_SPAN, ROWS]
    col_first, col_weights,  # [Wp], [COL_TAPS, Wp]
    chroma_row_first, chroma_row_weights,  # [H], [CHROMA_ROW_TAPS, H]
    chroma_col_first, chroma_col_weights,  # [W], [CHROMA_COL_TAPS, W]
    x,  # [3, F, Hp, Wp], contiguous
    height, width, out_height, out_width,
    SHIFT: tl.constexpr,
    ROW_SPAN: tl.constexpr, ROWS: tl.constexpr,
    COL_TAPS: tl.constexpr, COL_SPAN: tl.constexpr, OWN: tl.constexpr, COLUMNS: tl.constexpr,
    CHROMA_ROW_TAPS: tl.constexpr, CHROMA_COL_TAPS: tl.constexpr,
):  # fmt: skip
    """A program makes ROWS x OWN samples of one frame, in all three channels."""
    block = tl.program_id(1)
    frame = tl.program_id(2).to(tl.int64)
    target = tl.program_id(0) * OWN + tl.arange(0, COLUMNS)
    owned = (tl.arange(0, COLUMNS) < OWN) & (target < out_width)
    start = tl.load(col_first + tl.program_id(0) * OWN)
    source = start + tl.arange(0, COL_SPAN)
    inside = source < width
    chroma_at = tl.load(chroma_col_first + source, mask=inside, other=0) * c_pixel
    row = tl.arange(0, ROWS)
    first = tl.load(row_first + block)
    red = tl.zeros([ROWS, COL_SPAN], tl.float32)
    green = tl.zeros([ROWS, COL_SPAN], tl.float32)
    blue = tl.zeros([ROWS, COL_SPAN], tl.float32)
    for step in range(ROW_SPAN):
        line = first + step
        at = y + frame * y_frame + line * y_row + source * y_pixel
        luma = (tl.load(at, mask=inside, other=0).to(tl.int32) >> SHIFT).to(tl.float32)
        cb = tl.zeros([COL_SPAN], tl.float32)
        cr = tl.zeros([COL_SPAN], tl.float32)
        chroma_line = tl.load(chroma_row_first + line)
        for i in tl.static_range(CHROMA_ROW_TAPS):
            weight = tl.load(chroma_row_weights + i * height + line)
            for j in tl.static_range(CHROMA_COL_TAPS):
                across = tl.load(chroma_col_weights + j * width + source, mask=inside, other=0.0)
                at = frame * c_frame + (chroma_line + i) * c_row + chroma_at + j * c_pixel
                cb_code = tl.load(u + at, mask=inside, other=0).to(tl.int32) >> SHIFT
                cr_code = tl.load(v + at, mask=inside, other=0).to(tl.int32) >> SHIFT
                cb += (weight * across) * cb_code.to(tl.float32)
                cr += (weight * across) * cr_code.to(tl.float32)
        weights = tl.load(row_weights + (block * ROW_SPAN + step) * ROWS + row)[:, None]
        red += weights * _channel(to_rgb, luma, cb, cr)[None, :]
        green += weights * _channel(to_rgb + 4, luma, cb, cr)[None, :]
        blue += weights * _channel(to_rgb + 8, luma, cb, cr)[None, :]
    column = tl.load(col_first + target, mask=owned, other=start) - start
    out_red = tl.zeros([ROWS, COLUMNS], tl.float32)
    out_green = tl.zeros([ROWS, COLUMNS], tl.float32)
    out_blue = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tap in range(COL_TAPS):
        weights = tl.load(col_weights + tap * out_width + target, mask=owned, other=0.0)[None, :]
        index = tl.broadcast_to((column + tap)[None, :], [ROWS, COLUMNS])
        out_red += weights * tl.gather(red, index, 1)
        out_green += weights * tl.gather(green, index, 1)
        out_blue += weights * tl.gather(blue, index, 1)
    down = (block * ROWS + row)[:, None]
    here = owned[None, :] & (down < out_height)
    at = x + frame * out_height * out_width + down * out_width + target[None, :]
    channel = tl.num_programs(2).to(tl.int64) * out_height * out_width
    kind = x.dtype.element_ty
    tl.store(at, _signed(out_red).to(kind), mask=here)
    tl.store(at + channel, _signed(out_green).to(kind), mask=here)
    tl.store(at + 2 * channel, _signed(out_blue).to(kind), mask=here)


@triton.jit
def _channel(matrix, luma, cb, cr):  # type: ignore[no-untyped-def]
    """One row of the colour matrix, 0..1."""
    value = tl.load(matrix) * luma + tl.load(matrix + 1) * cb + tl.load(matrix + 2) * cr
    return tl.clamp(value + tl.load(matrix + 3), 0.0, 1.0)


@triton.jit
def _signed(value):  # type: ignore[no-untyped-def]
    """0..1 to -1..1."""
    return tl.clamp(value, 0.0, 1.0) * 2.0 - 1.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ToModelTables:
    """What depends on the video and the canvas, as bands; made once."""

    to_rgb: Floats  # [3, 4]: rgb in 0..1 = M[:, :3] . (y, u, v) + M[:, 3]
    rows: Bands  # H to Hp
    cols: Bands  # W to Wp
    chroma_rows: Bands  # h to H
    chroma_cols: Bands  # w to W


def to_model_tables(
    to_rgb: Floats,  # [3, 4]
    rows: Floats,  # [Hp, H]
    cols: Floats,  # [Wp, W]
    chroma_rows: Floats | None = None,  # [H, h]; None where chroma has luma's size
    chroma_cols: Floats | None = None,  # [W, w]
) -> ToModelTables:
    """Tables from the matrices of `kernels.resample`."""
    height, width = rows.shape[1], cols.shape[1]
    return ToModelTables(
        to_rgb=np.ascontiguousarray(to_rgb, np.float32),
        rows=bands(rows),
        cols=bands(cols),
        chroma_rows=bands(np.eye(height, dtype=np.float32) if chroma_rows is None else chroma_rows),
        chroma_cols=bands(np.eye(width, dtype=np.float32) if chroma_cols is None else chroma_cols),
    )


class ToModel:
    """`to_model_reference` by the kernel, for one kind of video and canvas."""

    def __init__(
        self,
        tables: ToModelTables,
        device: "torch.device | str",
        options: Mapping[str, int] | None = None,  # as in tuned/to_model.toml
    ) -> None:
        """Put the tables on the device; ValueError for a resize that no tile can hold."""
        import torch

        options = options or tuned("to_model", capability_of(torch.device(device)))
        self._tables = tables
        self._blocks, self._constants = to_model_constants(tables, options)
        blocks = self._blocks
        self._device_tables = tuple(
            torch.from_numpy(array).to(device)
            for array in (
                tables.to_rgb,
                *(blocks.first, blocks.weights),
                *(tables.cols.first, tables.cols.weights),
                *(tables.chroma_rows.first, tables.chroma_rows.weights),
                *(tables.chroma_cols.first, tables.chroma_cols.weights),
            )
        )

    def __call__(
        self,
        y: "Tensor",  # [F, H, W] uint8 or uint16, by any strides: NV12's are views
        u: "Tensor",  # [F, h, w], of one stride with v
        v: "Tensor",
        out: "Tensor",  # [3, F, Hp, Wp] fp16, bf16 or fp32, contiguous
        shift: int = 0,  # unused low bits of a code value: 6 for P010
    ) -> "Tensor":
        """Fill `out` and return it; TypeError or ValueError for planes that do not fit the tables."""
        tables = self._tables
        check_planes(y, u, v, tables.chroma_rows, tables.chroma_cols)
        frames, height, width = y.shape
        shape = (3, frames, tables.rows.outputs, tables.cols.outputs)
        if tuple(out.shape) != shape or not out.is_contiguous() or not out.is_floating_point():
            raise ValueError(f"to_model writes {shape} floats densely, not {tuple(out.shape)}")
        grid = (triton.cdiv(shape[3], self._constants["OWN"]), self._blocks.blocks, frames)
        if frames:
            to_model_kernel[grid](
                *(y, *y.stride(), u, v, *u.stride()),
                *self._device_tables,
                *(out, height, width, shape[2], shape[3]),
                **self._constants,
                SHIFT=shift,
            )
        return out


def to_model_constants(
    tables: ToModelTables, options: Mapping[str, int]
) -> tuple[RowBlocks, dict[str, Any]]:
    """The rows' blocks, and the kernel's compile-time arguments but the shift."""
    blocks = row_blocks(tables.rows, options["ROWS"])
    span, own = _columns(tables.cols, options["COL_SPAN"])
    return blocks, {
        **options,
        "ROW_SPAN": blocks.span,
        "COL_TAPS": tables.cols.taps,
        "COL_SPAN": span,
        "OWN": own,
        "COLUMNS": triton.next_power_of_2(own),
        "CHROMA_ROW_TAPS": tables.chroma_rows.taps,
        "CHROMA_COL_TAPS": tables.chroma_cols.taps,
    }


def check_planes(y: "Tensor", u: "Tensor", v: "Tensor", rows: Bands, cols: Bands) -> None:
    """TypeError or ValueError unless y [F, H, W], u, v [F, h, w] go with the chroma's bands."""
    import torch

    if y.dtype not in (torch.uint8, torch.uint16, torch.float32):
        raise TypeError(f"planes are uint8, uint16 or whole numbers in fp32, not {y.dtype}")
    luma, chroma = (y.shape[0], rows.outputs, cols.outputs), (y.shape[0], rows.inputs, cols.inputs)
    if tuple(y.shape) != luma:
        raise ValueError(f"the luma plane is {tuple(y.shape)}, not {luma}")
    if tuple(u.shape) != chroma or u.shape != v.shape or u.stride() != v.stride():
        raise ValueError(f"chroma is {tuple(u.shape)} and {tuple(v.shape)}, not {chroma} twice")
    if {u.dtype, v.dtype} != {y.dtype}:
        raise TypeError(f"chroma is {u.dtype} and {v.dtype}, luma {y.dtype}")


def _columns(cols: Bands, span: int) -> tuple[int, int]:
    """The columns that a program holds, from `span` up, and how many outputs they are for."""
    while span <= _WIDEST:
        own = own_columns(cols, span, _COLUMN_STEP)
        if own >= min(_FEWEST_COLUMNS, cols.outputs):
            return span, own
        span *= 2
    raise ValueError(
        f"a resize of {cols.inputs} to {cols.outputs} columns reduces too much at once"
    )
