"""The kernel `to_model` against its reference and the graph's module; see `tests.kernel_runs`."""

import numpy as np
import pytest
import torch
from tests.kernel_runs import DEVICE, poisoned
from tests.pixel_cases import VIDEOS, Video

from vr_trt.export.pixels import ToModel as ToModelModule
from vr_trt.export.pixels import ToModelSub
from vr_trt.kernels.to_model import ToModel, to_model_reference, to_model_tables

# Steps of the result's type near 1; in fp32 some for the order of the sums.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def canvas(video: Video, dtype: torch.dtype) -> torch.Tensor:
    return poisoned(3, video.frames, *video.padded, dtype=dtype)


@pytest.mark.parametrize("name", VIDEOS)
def test_kernel_equals_reference(name: str) -> None:
    video = VIDEOS[name]
    tables = video.to_model_tables()
    planes = video.planes(video.source, np.random.default_rng(1))
    out = canvas(video, torch.float32)
    assert ToModel(tables, DEVICE)(*planes, out, video.shift) is out
    wanted = to_model_reference(*planes, tables, video.shift)
    torch.testing.assert_close(out, wanted, rtol=0, atol=TOLERANCE[torch.float32])
    assert out.std() > 0.05  # a picture


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_kernel_equals_the_graphs_module(dtype: torch.dtype) -> None:
    video = VIDEOS["p010"]
    planes = video.planes(video.source, np.random.default_rng(2))
    out = ToModel(video.to_model_tables(), DEVICE)(*planes, canvas(video, dtype), video.shift)
    codes = [(plane.int() >> video.shift).float() for plane in planes]
    rows, cols = (torch.from_numpy(m).to(DEVICE) for m in video.resize_axes())
    axes = (torch.from_numpy(m).to(DEVICE) for m in video.chroma_axes(video.source, up=True))
    chroma_rows, chroma_cols = axes
    to_rgb = torch.from_numpy(video.to_rgb()).to(DEVICE)
    wanted = ToModelSub()(*codes, to_rgb, rows, cols.T, chroma_rows, chroma_cols.T)
    torch.testing.assert_close(out.float(), wanted[0], rtol=0, atol=TOLERANCE[dtype])


def test_rgb_needs_no_chroma_tables() -> None:
    video = VIDEOS["444, kept"]
    r, g, b = video.planes(video.source, np.random.default_rng(5))
    scale = np.column_stack((np.eye(3) / video.top, np.zeros(3))).astype(np.float32)
    out = ToModel(to_model_tables(scale, *video.resize_axes()), DEVICE)(
        r, g, b, canvas(video, torch.float32)
    )
    rows, cols = (torch.from_numpy(m).to(DEVICE) for m in video.resize_axes())
    wanted = ToModelModule()(r, g, b, torch.from_numpy(scale).to(DEVICE), rows, cols.T)
    torch.testing.assert_close(out, wanted[0], rtol=0, atol=TOLERANCE[torch.float32])


def test_tiles_of_any_size_give_the_same() -> None:
    video = VIDEOS["yuv420p"]
    tables = video.to_model_tables()
    planes = video.planes(video.source, np.random.default_rng(3))
    wanted = to_model_reference(*planes, tables)
    for rows, span in ((4, 32), (32, 16)):
        options = {"ROWS": rows, "COL_SPAN": span, "num_warps": 1, "num_stages": 1}
        out = ToModel(tables, DEVICE, options)(*planes, canvas(video, torch.float32))
        torch.testing.assert_close(out, wanted, rtol=0, atol=TOLERANCE[torch.float32])


def test_a_row_of_planes_may_be_longer_than_the_picture() -> None:
    video = VIDEOS["yuv420p"]
    tables = video.to_model_tables()
    planes = video.planes(video.source, np.random.default_rng(4))
    wide = [torch.nn.functional.pad(plane, (0, 5, 0, 1), value=200) for plane in planes]
    y, u, v = (w[:, : p.shape[1], : p.shape[2]] for w, p in zip(wide, planes, strict=True))
    convert = ToModel(tables, DEVICE)
    wanted = convert(*planes, canvas(video, torch.float32))
    assert torch.equal(convert(y, u, v, canvas(video, torch.float32)), wanted)
