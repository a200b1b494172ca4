"""A shot through every stage of the fake model: counts, order, values, memory."""

from pathlib import Path

import numpy as np
import pytest
from tests.fake_model import make_fake_model
from tests.pictures import RGB8, flat_frame

from vr_trt.engines.profiles import Profile
from vr_trt.errors import DamagedInputError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.shot import Shot, padded_length

PROFILE = Profile(
    name="test",
    short_side=16,
    window=13,
    overlap=1,
    latents_per_step=1,
    precision="fp32",
    cut=False,
)


def make_shot(folder: Path, k: int = 1, seed: int = 0, cut: bool = False) -> Shot:
    model = Model(make_fake_model(folder, latents_per_step=k, cut=cut))
    source = Picture(width=20, height=12, pixel=RGB8)
    sizes = canvas(20, 12, 16)
    target = Picture(width=sizes.out_w, height=sizes.out_h, pixel=RGB8)
    pixels = PixelStages(source, target, sizes, "none")
    return Shot(HostStages(model, pixels, PROFILE, seed), PROFILE)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9, 12, 13, 14, 21, 22, 40])
def test_as_many_frames_out_as_in_in_order(tmp_path: Path, count: int, k: int) -> None:
    shot = make_shot(tmp_path, k)
    levels = [20 + 5 * i for i in range(count)]
    done = [
        out for i, level in enumerate(levels) for out in shot.push(flat_frame(level, pts=3 * i))
    ]
    done += shot.finish()
    assert [frame.pts for frame in done] == [3 * i for i in range(count)]
    # The fake model averages each group of four frames; the last group may hold repeats.
    padded = levels + [levels[-1]] * 40
    for i, frame in enumerate(done):
        group = padded[4 * ((i - 1) // 4) + 1 :][:4] if i else padded[:1]
        assert frame.planes[0].shape == (16, 26)
        np.testing.assert_allclose(frame.planes[0], np.mean(group), atol=1.01)


def test_a_vae_cut_by_resolution_gives_the_same(tmp_path: Path) -> None:
    results = []
    for cut in (False, True):
        shot = make_shot(tmp_path / str(cut), cut=cut)
        done = [out for i in range(23) for out in shot.push(flat_frame(30 + 7 * i))]
        results.append([frame.planes[0] for frame in [*done, *shot.finish()]])
    np.testing.assert_array_equal(results[0], results[1])


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    shot = make_shot(tmp_path)
    with pytest.raises(DamagedInputError, match="changes from 20x12 to 10x12"):
        list(shot.push(flat_frame(9, width=10)))
        list(shot.finish())


def test_frames_in_flight_are_bounded(tmp_path: Path) -> None:
    shot = make_shot(tmp_path)
    given = 0
    for i in range(120):
        given += len(list(shot.push(flat_frame(100, pts=i))))
        assert i + 1 - given <= PROFILE.window + 4
    list(shot.finish())


@pytest.mark.parametrize(
    ("frames", "k", "padded"), [(2, 1, 13), (13, 1, 13), (14, 1, 17), (2, 2, 13), (14, 2, 21)]
)
def test_padded_length(frames: int, k: int, padded: int) -> None:
    assert padded_length(frames, PROFILE, k) == padded
