"""The kernel `to_video` against its reference and the graph's module; see `tests.kernel_runs`."""

import numpy as np
import pytest
import torch
from tests.kernel_runs import DEVICE
from tests.pixel_cases import VIDEOS, Planes, Video, uniform

from vr_trt.export.pixels import ToVideoSub
from vr_trt.kernels.to_video import ToVideo, to_video_reference

MOST_DIFFERING = 0.005  # where the last bit decides a rounding


def run(
    video: Video, x: torch.Tensor, dither: np.ndarray, options: dict[str, int] | None = None
) -> Planes:
    """The kernel's planes, as numbers; every item that it must write was wrong before."""
    low, high = np.array([video.top // 64, video.top - video.top // 64])
    random = np.random.default_rng(0)
    planes = video.planes(video.out, random)
    for plane in planes:  # a code that no limit lets through
        plane.copy_(torch.full_like(plane, 0))
    ToVideo(video.to_video_tables(dither), DEVICE, options)(x, *planes, video.shift)
    y, u, v = (plane.int() for plane in planes)
    for plane in (y, u, v):
        assert ((plane >> video.shift) >= int(low)).all()
        assert ((plane >> video.shift) <= int(high)).all()
        assert (plane & ((1 << video.shift) - 1)).eq(0).all()
    return y, u, v


def check(given: Planes, wanted: Planes, shift: int) -> None:
    for plane, expected in zip(given, wanted, strict=True):
        assert plane.shape == expected.shape
        difference = (plane - expected).abs() >> shift
        assert difference.max() <= 1
        assert difference.ne(0).sum() <= max(1, MOST_DIFFERING * difference.numel())


def picture(video: Video, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    x = uniform(-1.1, 1.1, 3, video.frames, *video.padded, seed=seed)
    return x, uniform(0.01, 0.99, *video.out, seed=seed + 1).cpu().numpy()


@pytest.mark.parametrize("name", VIDEOS)
def test_kernel_equals_reference(name: str) -> None:
    video = VIDEOS[name]
    x, dither = picture(video, 1)
    # The padding is no part of the picture.
    x[:, :, video.out[0] :] = torch.nan
    x[..., video.out[1] :] = torch.nan
    wanted = to_video_reference(x, video.to_video_tables(dither), video.shift)
    check(run(video, x, dither), wanted, video.shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_kernel_equals_the_graphs_module(dtype: torch.dtype) -> None:
    video = VIDEOS["nv12"]
    x, dither = picture(video, 3)
    x = x.to(dtype)
    rows, cols = (torch.from_numpy(m).to(DEVICE) for m in video.chroma_axes(video.out, up=False))
    tables = video.to_video_tables(dither)
    matrices = (torch.from_numpy(m).to(DEVICE) for m in (tables.from_rgb, dither, tables.limits))
    graph = ToVideoSub("none", torch.uint8)
    y, u, v = graph(x.float()[None], x.float()[None], *matrices, rows, cols.T)
    check(run(video, x, dither), (y.int(), u.int(), v.int()), 0)


def test_channels_may_lie_far_apart() -> None:
    """Twice as many elements as 31 bits count; the memory between is never touched."""
    video, step = VIDEOS["one sample"], 2**30
    x, dither = picture(video, 6)
    memory = torch.empty(2 * step + x[0].numel(), dtype=torch.float16, device=DEVICE)
    far = memory.as_strided(x.shape, (step, *x.stride()[1:]))
    far.copy_(x)
    wanted = to_video_reference(far, video.to_video_tables(dither))
    check(run(video, far, dither), wanted, 0)


def test_tiles_of_any_size_give_the_same() -> None:
    video = VIDEOS["yuv420p"]
    x, dither = picture(video, 5)
    wanted = to_video_reference(x, video.to_video_tables(dither))
    for rows, span in ((2, 64), (16, 32)):
        options = {"ROWS": rows, "COL_SPAN": span, "num_warps": 1, "num_stages": 1}
        check(run(video, x, dither, options), wanted, 0)
