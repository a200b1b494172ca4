"""What a run would do, and the refusal of what would not fit."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.pictures import RGB8, YUV420

from vr_trt.engines.cache import Canvas as Built
from vr_trt.engines.profiles import find_profile
from vr_trt.engines.selection import CPU, Asked, Machine, OwnGraphs, select
from vr_trt.errors import MemoryBudgetError
from vr_trt.runtime import plan as planning
from vr_trt.runtime.canvas import Canvas, canvas
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.memory import MIB, Law
from vr_trt.runtime.plan import Plan, check_memory, estimated_frames, frame_bytes, make_plan
from vr_trt.runtime.serving import Serving

CPU_ONLY = Machine(sm=None, installed=frozenset({CPU}), runs=frozenset({CPU}))
LAW = Law(
    base=100 * MIB,
    encode=1000,
    decode=1500,
    generator=50,
    encode_state=90,
    decode_state=110,
    image=400,
    attention=0,
)
INFO = VideoInfo(
    path=Path("film.mp4"),
    width=640,
    height=360,
    pixel=YUV420,
    time_base=Fraction(1, 25),
    frame_rate=Fraction(25),
    frames=100,
    seconds=4.0,
    sample_aspect=Fraction(1),
    rotation=0,
    is_image=False,
    audio_streams=0,
    guesses=(),
)


def own_graphs_at(sizes: Canvas) -> Serving:
    """A model's own graphs, which take any size."""
    frame = Built(width=sizes.padded_w, height=sizes.padded_h, latents=6, step=1)
    own = OwnGraphs(precision="fp32", canvas=None)
    selection = select(Asked(model="fake", canvas=frame, own=own), CPU_ONLY, ())
    return Serving(selection=selection, canvas=sizes)


def plan_of(info: VideoInfo = INFO, profile: str = "720p", law: Law | None = LAW) -> Plan:
    row = find_profile(profile)
    sizes = canvas(info.width, info.height, row.short_side)
    return make_plan(info, row, law, Path("out.mp4"), own_graphs_at(sizes))


def test_sizes_and_counts() -> None:
    plan = plan_of()
    assert (plan.canvas.out_w, plan.canvas.out_h) == (1280, 720)
    # 100 frames are filled up to 101: 26 latents; windows of 6 start every 4, the last slides back
    assert (plan.latents, plan.windows) == (26, 6)


@pytest.mark.parametrize(
    ("frames", "latents", "windows"),
    [(1, 1, 1), (2, 6, 1), (21, 6, 1), (22, 7, 2), (37, 10, 2), (38, 11, 3)],
)
def test_latents_and_windows(frames: int, latents: int, windows: int) -> None:
    plan = plan_of(replace(INFO, frames=frames))
    assert (plan.latents, plan.windows) == (latents, windows)


def test_an_unknown_length_stays_unknown() -> None:
    plan = plan_of(replace(INFO, frames=None, seconds=None))
    assert plan.frames is None and plan.latents is None and plan.windows is None
    assert estimated_frames(replace(INFO, frames=None, seconds=2.0)) == 50


def test_the_peak_grows_with_the_profile_and_not_with_the_length() -> None:
    peaks = [plan_of(profile=name).peak_bytes or 0 for name in ("360p", "720p", "1080p")]
    assert 0 < peaks[0] < peaks[1] < peaks[2]
    assert plan_of(replace(INFO, frames=10**6)).peak_bytes == peaks[1]


def test_too_large_is_refused_with_the_nearest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    between = (plan_of(profile="540p").peak_bytes or 0) + MIB
    monkeypatch.setattr(planning, "available_bytes", lambda: between)
    check_memory(plan_of(profile="540p"), LAW)
    with pytest.raises(MemoryBudgetError, match="film.mp4 at 1080p .*--profile 540p would fit"):
        check_memory(plan_of(profile="1080p"), LAW)
    monkeypatch.setattr(planning, "available_bytes", lambda: MIB)
    with pytest.raises(MemoryBudgetError, match="no profile would fit"):
        check_memory(plan_of(profile="1080p"), LAW)


def test_without_a_law_nothing_is_refused() -> None:
    plan = plan_of(law=None)
    assert plan.peak_bytes is None and plan.fits
    check_memory(plan, None)


def test_frame_bytes() -> None:
    assert frame_bytes(YUV420, 4, 4) == 24
    assert frame_bytes(RGB8, 5, 3) == 45
    assert frame_bytes(replace(YUV420, bits=10), 4, 4) == 48
