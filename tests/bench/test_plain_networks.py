"""The rival restores what we restore: the same networks, noise, colours, and so the same pictures."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from vr_trt.bench.adapter import Frames
from vr_trt.bench.plain_networks import TorchWay
from vr_trt.engines.profiles import Profile, find_profile
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import EMBEDDED, Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.restorer import RGB
from vr_trt.runtime.shot import Shot

WIDTH, HEIGHT = 88, 56  # no multiples of 16: both pad
PROFILE: Profile = find_profile("360p")


@pytest.fixture(scope="module")
def clip() -> Frames:
    """21 frames, one window: a photograph that moves."""
    frames = [astronaut()[100 : 100 + HEIGHT, 150 + i : 150 + i + WIDTH] for i in range(21)]
    return np.ascontiguousarray(np.stack(frames))


@pytest.fixture(scope="module")
def way() -> TorchWay:
    way, threads = TorchWay("nano"), torch.get_num_threads()
    way.load()
    torch.set_num_threads(threads)  # it takes all cores, which the tests after this one need not
    return way


def ours(clip: Frames) -> Frames:
    picture = Picture(width=WIDTH, height=HEIGHT, pixel=RGB)
    model = Model(EMBEDDED / "nano")
    sizes, detail = canvas(WIDTH, HEIGHT, HEIGHT), model.manifest.detail
    pixels = PixelStages(picture, picture, sizes, "wavelet", detail=detail)
    shot = Shot(HostStages(model, pixels, PROFILE, seed=0), PROFILE)
    restored: list[Frame] = []
    for at in range(len(clip)):
        y, u, v = (np.ascontiguousarray(clip[at, ..., c]) for c in range(3))
        restored += shot.push(Frame((y, u, v), at, 1))
    restored += shot.finish()
    return np.stack([np.stack(frame.planes, -1) for frame in restored]).astype(np.uint8)


def test_it_makes_our_pictures(way: TorchWay, clip: Frames) -> None:
    theirs = way.restore(clip)
    assert theirs.shape == clip.shape and theirs.dtype == np.uint8
    away = np.abs(theirs.astype(int) - ours(clip))
    # We dither and they round: a level apart here and there, and no more.
    assert away.max() <= 2 and away.mean() < 0.6
    assert np.abs(theirs.astype(int) - clip).mean() > 1  # it is not the input


def test_frames_that_fill_no_latent(way: TorchWay, clip: Frames) -> None:
    assert way.restore(clip[:7]).shape == clip[:7].shape


@pytest.mark.slow
def test_compiled(way: TorchWay, clip: Frames) -> None:
    compiled = TorchWay("nano", compiled=True)
    compiled.load()
    away = way.restore(clip[:5]).astype(int) - compiled.restore(clip[:5])
    assert np.abs(away).max() <= 1
