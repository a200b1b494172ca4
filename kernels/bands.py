"""Resampling matrices in the form that a GPU kernel wants: only what is not zero.

A row of a resampling matrix holds a few neighbouring values. `Bands` keeps these for each output
sample; `RowBlocks` keeps, for a tile of outputs, all inputs that any of them needs, so that a kernel
reads each input once for the whole tile. Indices are in range and never decrease from one output to
the next.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Output i = sum over t of weights[t, i] * input[first[i] + t]."""

    first: Ints  # [outputs]
    weights: Floats  # [taps, outputs]
    inputs: int

    @property
    def taps(self) -> int:
        return self.weights.shape[0]

    @property
    def outputs(self) -> int:
        return self.weights.shape[1]

    def matrix(self) -> Floats:
        """The matrix [outputs, inputs] that they stand for."""
        dense = np.zeros((self.outputs, self.inputs), np.float32)
        for tap, weights in enumerate(self.weights):
            dense[np.arange(self.outputs), self.first + tap] = weights
        return dense


@dataclass(frozen=True, slots=True, eq=False)
class RowBlocks:
    """Output `rows * b + r` = sum over s of weights[b, s, r] * input[first[b] + s]."""

    first: Ints  # [blocks]
    weights: Floats  # [blocks, span, rows]; zero where the last block has no output
    outputs: int

    @property
    def blocks(self) -> int:
        return self.weights.shape[0]

    @property
    def span(self) -> int:
        return self.weights.shape[1]

    @property
    def rows(self) -> int:
        return self.weights.shape[2]


def bands(
    matrix: Floats,  # [outputs, inputs]
) -> Bands:
    """The bands of a resampling matrix; ValueError for a row of zeros."""
    inputs = matrix.shape[1]
    filled = matrix != 0
    if not filled.any(1).all():
        raise ValueError("a resampling matrix with an empty row has no bands")
    first = np.minimum.accumulate(filled.argmax(1)[::-1])[::-1]  # a narrow row begins as the next
    last = inputs - 1 - filled[:, ::-1].argmax(1)
    taps = int((last - first).max()) + 1
    first = np.minimum(first, inputs - taps)
    weights = np.take_along_axis(matrix, first[:, None] + np.arange(taps), 1)
    return Bands(first.astype(np.int32), np.ascontiguousarray(weights.T, np.float32), inputs)


def row_blocks(table: Bands, rows: int, factor: int = 0) -> RowBlocks:
    """The bands in blocks of `rows` outputs.

    With a `factor`, block b's inputs also include the inputs `factor * rows * b` to
    `factor * rows * (b + 1)`: luma rows that lie under its chroma rows.
    """
    starts = np.arange(0, table.outputs, rows)
    ends = np.minimum(starts + rows, table.outputs)
    first = table.first[starts].astype(np.int64)
    last = table.first[ends - 1] + table.taps
    if factor:
        first = np.minimum(first, factor * starts)
        last = np.maximum(last, np.minimum(factor * ends, table.inputs))
    span = int((last - first).max())
    first = np.minimum(first, table.inputs - span)
    weights = np.zeros((len(starts), span, rows), np.float32)
    for output in range(table.outputs):
        block, row = divmod(output, rows)
        at = table.first[output] - first[block]
        weights[block, at : at + table.taps, row] = table.weights[:, output]
    return RowBlocks(first.astype(np.int32), weights, table.outputs)


def own_columns(table: Bands, span: int, step: int, factor: int = 0) -> int:
    """How many outputs a tile can have if it holds `span` inputs, from its first output's first on.

    A multiple of `step`, no larger than covers all outputs; 0 if not even `step` fit. `factor` as in
    `row_blocks`: a tile must hold those inputs too.
    """
    own = 0
    while own < table.outputs:
        starts = np.arange(0, table.outputs, own + step)
        ends = np.minimum(starts + own + step, table.outputs)
        last = table.first[ends - 1] + table.taps
        if factor:
            last = np.maximum(last, np.minimum(factor * ends, table.inputs))
        if (last - table.first[starts]).max() > span:
            break
        own += step
    return own


def smoothing_bands(size: int, dilations: tuple[int, ...] = (1, 2, 4, 8, 16)) -> Bands:
    """Blurs by [1, 2, 1]/4 with these dilations, one after the other, edges repeated (spec §7.9).

    All weights are multiples of 4**-levels, exact in float32; away from the edges they are a tent.
    """
    low = np.eye(size, dtype=np.float32)
    index = np.arange(size)
    for dilation in dilations:
        before, after = (
            low[np.maximum(index - dilation, 0)],
            low[np.minimum(index + dilation, size - 1)],
        )
        low = 0.5 * low + 0.25 * (before + after)
    return bands(low)
