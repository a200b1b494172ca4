"""The networks' output to a video's planes: crop, 0..1, YUV, chroma's size, dither, code values.

In this order: what it computes, in plain PyTorch; the Triton kernel; its launch from Python.
Sources: network spec §7.10; the same arithmetic as the graphs `to_video`. The wavelet correction
comes before it (`kernels.wavelet`); a scale and a shift of each channel, of RGB or CIELAB
(`kernels.colour_match`), are applied on the way, for a few functions more a sample.

One pass over memory. For F frames of Ho x Wo it reads 3 * F*Ho*Wo samples and the thresholds once
a frame, and writes in 4:2:0 1.5 * F*Ho*Wo code values; tiles overlap by the chroma filter's taps.
A program walks down the rows of its tile, writes their luma, keeps the sums that become chroma in
registers, and combines these across columns at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import triton
import triton.language as tl

from vr_trt.kernels.bands import Bands, Floats, RowBlocks, bands, own_columns, row_blocks
from vr_trt.kernels.checks import check_picture, check_tensor
from vr_trt.kernels.cielab import AXES, lab_of_srgb, srgb_of_lab, unsigned
from vr_trt.kernels.colour_match import Axes
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_COLUMN_STEP = 8  # chroma samples: with 4:2:0 a tile of luma begins where 16-byte writes may
_WIDEST = 1024


def to_video_reference(
    x: "Tensor",  # [3, F, >= Ho, >= Wo]
    tables: "ToVideoTables",
    shift: int = 0,
) -> "tuple[Tensor, Tensor, Tensor]":  # [F, Ho, Wo], 2 x [F, h, w], int32
    """The conversion by dense matrices, every step stored; of pictures corrected before."""
    import torch

    matrix, dither, limits, rows, cols = (
        torch.from_numpy(part).to(x.device)
        for part in (
            *(tables.from_rgb, tables.dither, tables.limits),
            *(tables.rows.matrix(), tables.cols.matrix()),
        )
    )
    height, width = tables.dither.shape
    rgb = (x[..., :height, :width].float() * 0.5 + 0.5).clamp(0, 1)
    codes = (matrix[:, :3] @ rgb.flatten(1) + matrix[:, 3:]).view(rgb.shape)

    def quantised(plane: "Tensor") -> "Tensor":
        threshold = dither[: plane.shape[1], : plane.shape[2]]
        return (plane + threshold).floor().clamp(limits[0], limits[1]).int() << shift

    y, u, v = codes
    return quantised(y), quantised(rows @ u @ cols.T), quantised(rows @ v @ cols.T)


@triton.jit
def to_video_kernel(  # type: ignore[no-untyped-def]
    x, x_channel, x_frame, x_row,  # [3, F, >= Ho, >= Wo], pixels side by side
    from_rgb,  # [3, 4]
    dither,  # [Ho, Wo]
    limits,  # [2]
    row_first, row_weights,  # [blocks], [blocks, ROW_SPAN, ROWS]
    col_first, col_weights,  # [w], [COL_TAPS, w]
    axes,  # [2, 3, 3], of cielab
    match,  # [F, 3, 2]: scale and shift of each channel; not read unless MATCH
    y, y_frame, y_row, y_pixel,  # [F, Ho, Wo] by strides
    u, v, c_frame, c_row, c_pixel,  # [F, h, w] each
    height, width, chroma_height, chroma_width,
    SHIFT: tl.constexpr,
    MATCH: tl.constexpr,  # 0: no correction, 1: of red, green and blue, 2: of L*, a*, b*
    DOWN: tl.constexpr, ACROSS: tl.constexpr,  # luma samples a chroma sample
    ROW_SPAN: tl.constexpr, ROWS: tl.constexpr,
    COL_TAPS: tl.constexpr, COL_SPAN: tl.constexpr, OWN: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program makes ROWS x OWN chroma samples of one frame and the luma samples under them."""
    block = tl.program_id(1)
    frame = tl.program_id(2).to(tl.int64)
    low, high = tl.load(limits), tl.load(limits + 1)
    start = tl.load(col_first + tl.program_id(0) * OWN)
    source = start + tl.arange(0, COL_SPAN)
    inside = source < width
    first_owned = tl.program_id(0) * (OWN * ACROSS)
    owned = inside & (source >= first_owned) & (source < first_owned + OWN * ACROSS)
    row = tl.arange(0, ROWS)
    first = tl.load(row_first + block)
    cb = tl.zeros([ROWS, COL_SPAN], tl.float32)
    cr = tl.zeros([ROWS, COL_SPAN], tl.float32)
    for step in range(ROW_SPAN):
        line = first + step
        at = x + frame * x_frame + line * x_row + source
        red = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        green = tl.load(at + x_channel, mask=inside, other=0.0).to(tl.float32)
        # Twice `x_channel` may be more than 32 bits hold; a pointer holds it.
        blue = tl.load(at + x_channel + x_channel, mask=inside, other=0.0).to(tl.float32)
        red, green, blue = _corrected(red, green, blue, match + frame * 6, axes, MATCH)
        here = owned & (line >= block * (ROWS * DOWN)) & (line < (block + 1) * (ROWS * DOWN))
        threshold = tl.load(dither + line * width + source, mask=here, other=0.0)
        code = tl.clamp(tl.floor(_code(from_rgb, red, green, blue) + threshold), low, high)
        at = y + frame * y_frame + line * y_row + source * y_pixel
        tl.store(at, (code.to(tl.int32) << SHIFT).to(y.dtype.element_ty), mask=here)
        weights = tl.load(row_weights + (block * ROW_SPAN + step) * ROWS + row)[:, None]
        cb += weights * _code(from_rgb + 4, red, green, blue)[None, :]
        cr += weights * _code(from_rgb + 8, red, green, blue)[None, :]
    target = tl.program_id(0) * OWN + tl.arange(0, COLUMNS)
    owned = (tl.arange(0, COLUMNS) < OWN) & (target < chroma_width)
    column = tl.load(col_first + target, mask=owned, other=start) - start
    out_cb = tl.zeros([ROWS, COLUMNS], tl.float32)
    out_cr = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tap in range(COL_TAPS):
        weights = tl.load(col_weights + tap * chroma_width + target, mask=owned, other=0.0)[None, :]
        index = tl.broadcast_to((column + tap)[None, :], [ROWS, COLUMNS])
        out_cb += weights * tl.gather(cb, index, 1)
        out_cr += weights * tl.gather(cr, index, 1)
    down = (block * ROWS + row)[:, None]
    here = owned[None, :] & (down < chroma_height)
    threshold = tl.load(dither + down * width + target[None, :], mask=here, other=0.0)
    at = frame * c_frame + down * c_row + target[None, :] * c_pixel
    code = tl.clamp(tl.floor(out_cb + threshold), low, high).to(tl.int32) << SHIFT
    tl.store(u + at, code.to(u.dtype.element_ty), mask=here)
    code = tl.clamp(tl.floor(out_cr + threshold), low, high).to(tl.int32) << SHIFT
    tl.store(v + at, code.to(v.dtype.element_ty), mask=here)


@triton.jit
def _corrected(red, green, blue, match, axes, MATCH: tl.constexpr):  # type: ignore[no-untyped-def]
    """-1..1 to 0..1, with the correction."""
    if MATCH == 1:
        red, green, blue = _matched(red, green, blue, match)
    red, green, blue = unsigned(red), unsigned(green), unsigned(blue)
    if MATCH == 2:
        lightness, a, b = lab_of_srgb(axes, red, green, blue)
        lightness, a, b = _matched(lightness, a, b, match)
        red, green, blue = srgb_of_lab(axes, lightness, a, b)
    return red, green, blue


@triton.jit
def _matched(first, second, third, match):  # type: ignore[no-untyped-def]
    """Three channels by their scales and shifts."""
    return (
        first * tl.load(match) + tl.load(match + 1),
        second * tl.load(match + 2) + tl.load(match + 3),
        third * tl.load(match + 4) + tl.load(match + 5),
    )


@triton.jit
def _code(matrix, red, green, blue):  # type: ignore[no-untyped-def]
    """One row of the colour matrix, not yet an integer."""
    value = tl.load(matrix) * red + tl.load(matrix + 1) * green + tl.load(matrix + 2) * blue
    return value + tl.load(matrix + 3)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ToVideoTables:
    """What depends on the video, chroma's reduction as bands; made once."""

    from_rgb: Floats  # [3, 4]: code values = M[:, :3] . (r, g, b in 0..1) + M[:, 3]
    dither: Floats  # [Ho, Wo] in (0, 1); 0.5 everywhere rounds to nearest
    limits: Floats  # [2] lowest and highest code
    rows: Bands  # Ho to h
    cols: Bands  # Wo to w

    @property
    def factors(self) -> tuple[int, int]:
        """Luma samples a chroma sample, (down, across)."""
        down = -(-self.rows.inputs // self.rows.outputs)
        return down, -(-self.cols.inputs // self.cols.outputs)


def to_video_tables(
    from_rgb: Floats,  # [3, 4]
    dither: Floats,  # [Ho, Wo]
    limits: Floats,  # [2]
    chroma_rows: Floats | None = None,  # [h, Ho]; None where chroma has luma's size
    chroma_cols: Floats | None = None,  # [w, Wo]
) -> ToVideoTables:
    """Tables from the matrices of `kernels.resample`."""
    height, width = dither.shape
    return ToVideoTables(
        from_rgb=np.ascontiguousarray(from_rgb, np.float32),
        dither=np.ascontiguousarray(dither, np.float32),
        limits=np.ascontiguousarray(limits, np.float32),
        rows=bands(np.eye(height, dtype=np.float32) if chroma_rows is None else chroma_rows),
        cols=bands(np.eye(width, dtype=np.float32) if chroma_cols is None else chroma_cols),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ColourScales:
    """What `kernels.colour_match` found: a scale and a shift for every channel of every frame."""

    values: "Tensor"  # [F, 3, 2] fp32
    axes: Axes


class ToVideo:
    """`to_video_reference` by the kernel, for one kind of video."""

    def __init__(
        self,
        tables: ToVideoTables,
        device: "torch.device | str",
        options: Mapping[str, int] | None = None,  # as in tuned/to_video.toml
    ) -> None:
        """Put the tables on the device."""
        import torch

        options = options or tuned("to_video", capability_of(torch.device(device)))
        self._tables = tables
        self._blocks, self._constants = to_video_constants(tables, options)
        blocks, cols = self._blocks, tables.cols
        self._device_tables = tuple(
            torch.from_numpy(array).to(device)
            for array in (
                *(tables.from_rgb, tables.dither, tables.limits),
                *(blocks.first, blocks.weights, cols.first, cols.weights),
                AXES,
            )
        )

    def __call__(
        self,
        x: "Tensor",  # [3, F, >= Ho, >= Wo] fp16, bf16 or fp32; its top left is the picture
        y: "Tensor",  # [F, Ho, Wo] uint8 or uint16, by any strides: NV12's are views
        u: "Tensor",  # [F, h, w], of one stride with v
        v: "Tensor",
        shift: int = 0,  # unused low bits of a code value: 6 for P010
        match: ColourScales | None = None,
    ) -> None:
        """Fill y, u, v, corrected by `match` where given.

        TypeError or ValueError for tensors that do not fit the tables.
        """
        import torch

        tables = self._tables
        _check(x, y, u, v, tables)
        frames, height, width = y.shape
        if match is not None:
            size = (frames, 3, 2)
            check_tensor("to_video: match", match.values, size, torch.float32, x.device)
        grid = (triton.cdiv(u.shape[2], self._constants["OWN"]), self._blocks.blocks, frames)
        if frames:
            to_video_kernel[grid](
                *(x, *x.stride()[:3]),
                *self._device_tables,
                x if match is None else match.values,
                *(y, *y.stride(), u, v, *u.stride()),
                *(height, width, u.shape[1], u.shape[2]),
                **self._constants,
                SHIFT=shift,
                MATCH=0 if match is None else 2 if match.axes == "lab" else 1,
            )


def to_video_constants(
    tables: ToVideoTables, options: Mapping[str, int]
) -> tuple[RowBlocks, dict[str, Any]]:
    """The rows' blocks, and the kernel's compile-time arguments but the shift."""
    down, across = tables.factors
    blocks = row_blocks(tables.rows, options["ROWS"], down)
    span = options["COL_SPAN"]
    while not (own := own_columns(tables.cols, span, _COLUMN_STEP, across)):
        span *= 2  # at most once or twice: a chroma sample has at most 16 taps
        assert span <= _WIDEST
    return blocks, {
        **options,
        "DOWN": down,
        "ACROSS": across,
        "ROW_SPAN": blocks.span,
        "COL_TAPS": tables.cols.taps,
        "COL_SPAN": span,
        "OWN": own,
        "COLUMNS": triton.next_power_of_2(own),
    }


def _check(x: "Tensor", y: "Tensor", u: "Tensor", v: "Tensor", tables: ToVideoTables) -> None:
    import torch

    height, width = tables.dither.shape
    frames = y.shape[0]
    check_picture("to_video: x", x, frames, height, width)
    kinds = (torch.uint8, torch.uint16, torch.float32)
    if y.dtype not in kinds or {u.dtype, v.dtype} != {y.dtype}:
        raise TypeError(f"planes are uint8, uint16 or fp32, not {y.dtype}, {u.dtype}, {v.dtype}")
    chroma = (frames, tables.rows.outputs, tables.cols.outputs)
    if tuple(y.shape) != (frames, height, width) or tuple(u.shape) != chroma:
        raise ValueError(f"the planes are {tuple(y.shape)} and {tuple(u.shape)}, not {chroma}")
    if u.shape != v.shape or u.stride() != v.stride():
        raise ValueError(f"u and v differ: {tuple(u.shape)}, {tuple(v.shape)}")
