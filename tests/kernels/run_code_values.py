"""The kernels of code values against their references and the host's code; run by its test."""

import numpy as np
import pytest
import torch
from tests.kernel_runs import DEVICE

from vr_trt.kernels.between import BLOCK
from vr_trt.kernels.code_values import (
    CELLS,
    cells_kernel,
    cells_reference,
    digest_kernel,
    digest_reference,
    place_kernel,
    place_reference,
)
from vr_trt.runtime.frame_digest import _row_sums, weights
from vr_trt.runtime.scene_cuts import _cells, picks

KINDS = {"uint8": torch.uint8, "uint16": torch.uint16}


def codes(kind: str, rows: int, columns: int) -> torch.Tensor:
    top = 1 << (8 if kind == "uint8" else 16)
    values = np.random.default_rng(rows * columns).integers(0, top, (rows, columns))
    return torch.from_numpy(values.astype(kind)).to(DEVICE)


def test_interleaved_chroma_becomes_planes_and_back() -> None:
    """P010 in rows of 40 items: the second of each pair, six bits down; then up again."""
    rows, columns = 5, BLOCK + 1
    pitch = 2 * columns + 6
    stored = codes("uint16", rows, pitch)
    plane = torch.zeros(rows, columns, dtype=torch.uint16, device=DEVICE)
    grid = (-(-columns // BLOCK), rows)
    place_kernel[grid](plane, columns, 1, stored[:, 1:], pitch, 2, 0, 6, columns, BLOCK=BLOCK)
    expected = torch.zeros_like(plane)
    place_reference(expected, stored[:, 1 : 2 * columns : 2], 0, 6)
    assert plane.int().equal(expected.int())
    back = stored.clone()
    place_kernel[grid](back[:, 1:], pitch, 2, plane, columns, 1, 6, 0, columns, BLOCK=BLOCK)
    wanted = stored.int()
    wanted[:, 1 : 2 * columns : 2] &= 0xFFC0
    assert back.int().equal(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plane_is_turned(kind: str) -> None:
    """A quarter clockwise: rows run up the columns."""
    stored = codes(kind, 7, 9)
    out = torch.zeros(9, 7, dtype=KINDS[kind], device=DEVICE)
    start = stored.reshape(-1)[6 * 9 :]
    place_kernel[(1, 9)](out, 7, 1, start, 1, -9, 0, 0, 7, BLOCK=BLOCK)
    np.testing.assert_array_equal(out.cpu().numpy(), np.rot90(stored.cpu().numpy(), -1))


@pytest.mark.parametrize(("kind", "down"), [("uint8", 0), ("uint16", 6)])
@pytest.mark.parametrize("size", [(1, 1), (9, 70), (150, 300)])
def test_cells_are_those_of_the_host(kind: str, down: int, size: tuple[int, int]) -> None:
    luma = codes(kind, *size)
    rows, columns = (torch.from_numpy(axis.astype(np.int32)).to(DEVICE) for axis in picks(size))
    sums = torch.full((len(rows), len(columns)), -1, dtype=torch.int32, device=DEVICE)
    cells_kernel[(1, len(rows))](
        sums,
        luma,
        size[1],
        1,
        down,
        rows,
        columns,
        rows.shape[1],
        columns.shape[1],
        len(columns),
        BLOCK=CELLS,
    )
    expected = torch.empty_like(sums)
    cells_reference(expected, luma, down, rows, columns)
    assert sums.equal(expected)
    count = rows.shape[1] * columns.shape[1]
    theirs = _cells(luma.cpu().numpy() >> down)
    np.testing.assert_array_equal(sums.cpu().numpy() // count, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [1, BLOCK, 2 * BLOCK + 3])
def test_digests_are_those_of_the_host(kind: str, columns: int) -> None:
    plane = codes(kind, 3, columns)
    factors = torch.from_numpy(weights(columns)).to(DEVICE)
    sums = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    digest_kernel[(1, 3)](sums, plane, columns, 1, factors, columns, BLOCK=BLOCK)
    expected = torch.empty_like(sums)
    digest_reference(expected, plane, factors)
    assert sums.equal(expected)
    np.testing.assert_array_equal(sums.cpu().numpy(), _row_sums(plane.cpu().numpy()))
