"""Shots, joins and entries of a film, with the model that ships where exactness matters."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_model import make_fake_model
from tests.pictures import RGB8

from vr_trt.bench.cut_clips import scene
from vr_trt.engines.profiles import Profile
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.entry import CHECKED_FRAMES, WARM_LATENTS, Entry, entry_at
from vr_trt.runtime.film import (
    SEGMENT_FRAMES,
    SHOT_SEGMENT_FRAMES,
    EntryMissed,
    Film,
    Resume,
)
from vr_trt.runtime.frame_digest import frame_digest
from vr_trt.runtime.frames import Frame, Join
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import EMBEDDED, Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.shot import Shot


@cache
def nano() -> Model:
    return Model(EMBEDDED / "nano")


def profile(side: int) -> Profile:
    return Profile(
        name="test",
        short_side=side,
        window=21,
        overlap=2,
        latents_per_step=1,
        cut=False,
        precision="fp32",
    )


def maker(model: Model, side: int) -> Callable[[Entry], Shot]:
    """Makes shots of side x side RGB pictures, as Film wants them."""
    sizes = canvas(side, side, side)
    picture = Picture(width=side, height=side, pixel=RGB8)
    pixels = PixelStages(picture, picture, sizes, "none")

    def make(entry: Entry) -> Shot:
        return Shot(HostStages(model, pixels, profile(side), 0), profile(side), entry)

    return make


def moving(count: int, side: int, seed: int = 3, first: int = 0) -> list[Frame]:
    """A camera that moves over a scene, two pixels a frame."""
    world = scene(np.random.default_rng(seed)).round().astype(np.uint8)
    at = np.arange(side)
    views = [world[40 : 40 + side][:, (2 * i + at) % world.shape[1]] for i in range(count)]
    return [
        Frame((view, view, view), first + i, 1)
        for i, view in enumerate(map(np.ascontiguousarray, views))
    ]


def through(film: Film, frames: Iterable[Frame]) -> list[Frame]:
    return [out for frame in frames for out in film.push(frame)] + list(film.finish())


def same(one: Frame, other: Frame) -> bool:
    return one.pts == other.pts and frame_digest(one) == frame_digest(other)


def test_a_shot_is_restored_as_if_it_were_alone() -> None:
    """The VAE's state starts anew and no generator window crosses the cut."""
    first, second = moving(23, 32), moving(30, 32, seed=5, first=23)
    make = maker(nano(), 32)
    marked = [*first, replace(second[0], starts_shot=True), *second[1:]]
    whole = through(Film(make), marked)
    alone = through(Film(make), first) + through(Film(make), second)
    assert [frame.pts for frame in whole] == list(range(53))
    assert all(map(same, whole, alone))
    uncut = through(Film(make), first + second)
    assert not same(uncut[23], whole[23])


@cache
def long_shot() -> tuple[list[Frame], list[Frame]]:
    """A shot of 500 frames, and what a whole run makes of it."""
    frames = moving(500, 16)
    return frames, through(Film(maker(nano(), 16)), frames)


def test_segments_begin_where_the_vae_can_be_entered() -> None:
    _, whole = long_shot()
    joins = [frame.join for frame in whole if frame.join]
    assert [join.frame for join in joins] == [0, 121, 241, 361, 481]
    assert all(join.shot == 0 and (join.frame - 5) % 4 == 0 for join in joins[1:])


def resumed(frame: int, warm: int, tail: tuple[str, ...]) -> Resume:
    return Resume(frame=frame, shot=0, tail=tail, entry=entry_at(frame, profile(16), 1, warm))


@pytest.mark.parametrize("frame", [121, 481])
def test_a_run_that_is_taken_up_makes_the_same_frames(frame: int) -> None:
    frames, whole = long_shot()
    tail = tuple(frame_digest(done) for done in whole[frame - CHECKED_FRAMES : frame])
    resume = resumed(frame, WARM_LATENTS, tail)
    assert (resume.first_read > 0) == (frame == 481)
    again = through(Film(maker(nano(), 16), resume), frames[resume.first_read :])
    assert [done.pts for done in again] == list(range(frame, 500))
    assert all(map(same, again, whole[frame:]))
    assert [done.join for done in again] == [done.join for done in whole[frame:]]


def test_too_short_a_way_to_warm_up_is_noticed() -> None:
    frames, whole = long_shot()
    tail = tuple(frame_digest(done) for done in whole[361 - CHECKED_FRAMES : 361])
    resume = resumed(361, 6, tail)
    with pytest.raises(EntryMissed):
        through(Film(maker(nano(), 16), resume), frames[resume.first_read :])


def test_a_network_that_never_forgets_is_noticed(tmp_path: Path) -> None:
    """The fake model's state counts latents, so only the shot's start will do."""
    make = maker(Model(make_fake_model(tmp_path)), 16)
    frames = moving(420, 16)
    whole = through(Film(make), frames)
    tail = tuple(frame_digest(done) for done in whole[361 - CHECKED_FRAMES : 361])
    resume = resumed(361, WARM_LATENTS, tail)
    assert resume.entry.decoded > 0
    with pytest.raises(EntryMissed):
        through(Film(make, resume), frames[resume.first_read :])
    start = replace(resume, entry=Entry(frame=361))
    again = through(Film(make, start), frames)
    assert all(map(same, again, whole[361:])) and len(again) == 420 - 361


def test_segments_end_with_shots_that_are_long_enough(tmp_path: Path) -> None:
    make = maker(Model(make_fake_model(tmp_path)), 16)
    cuts = {20, SHOT_SEGMENT_FRAMES + 2, 90, 91}
    frames = [replace(frame, starts_shot=frame.pts in cuts) for frame in moving(300, 16)]
    joins = [frame.join for frame in through(Film(make), frames) if frame.join]
    start = SHOT_SEGMENT_FRAMES + 2
    later = next(n for n in range(start + SEGMENT_FRAMES, 300) if (n - 91 - 5) % 4 == 0)
    assert joins[:3] == [Join(0, 0), Join(start, start), Join(later, 91)]


@given(st.integers(0, 400), st.integers(1, 3), st.integers(0, 60))
def test_entries_keep_the_calls_as_they_were(chunk: int, step: int, warm: int) -> None:
    one = profile(16)
    frame = 5 + 4 * step * chunk
    entry = entry_at(frame, one, step, warm)
    stride = one.window_latents - one.overlap
    assert entry.encoded % step == entry.decoded % step == entry.window % stride == 0
    assert entry.encoded <= entry.window <= entry.decoded <= -(-frame // 4)
    # what is decoded was blended, and the first window is over before the first wanted frame
    assert entry.window == 0 or entry.window + one.overlap <= entry.decoded
    assert entry.window == 0 or 4 * (entry.window + one.window_latents - 1) <= frame
    assert entry.decoded == 0 or 4 * entry.decoded + 4 * warm <= frame + 3
    assert entry.encoded == 0 or entry.window - entry.encoded >= warm


def test_no_jump_where_windows_join() -> None:
    """The change from frame to frame at the ends of an overlap, by that inside a window."""
    frames = moving(85, 96, seed=2)
    done = through(Film(maker(nano(), 96)), frames)
    planes = [frame.planes[1].astype(float) for frame in done]
    sources = [frame.planes[1].astype(float) for frame in frames]
    # a moving camera: what comes into the picture differs in contrast, so by the source's change
    changes = [
        np.abs(b - a).mean() / np.abs(d - c).mean()
        for a, b, c, d in zip(planes, planes[1:], sources, sources[1:], strict=False)
    ]
    at_joins, inside = [], []
    for latent in range(2, 21):  # the change from the latent before to this one
        place, change = latent % 4, changes[4 * (latent - 1)]
        if latent >= 4 and place in (0, 2):
            at_joins.append(change)
        elif place == 3:
            inside.append(change)
    assert np.mean(at_joins) < 1.1 * np.mean(inside), (np.mean(at_joins), np.mean(inside))
