"""How a film is cut into items: all of it, once, where a single run would begin segments."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_trt.engines.profiles import Profile
from vr_trt.runtime import work_items
from vr_trt.runtime.film import begins_segment
from vr_trt.runtime.frames import Join
from vr_trt.runtime.work_items import REST_FRAMES, STRETCH_FRAMES, Item, Planner, Rules

PROFILE = Profile(
    name="test", short_side=16, window=21, overlap=2, latents_per_step=1, cut=False, precision="fp32"
)  # fmt: skip


def rules(step: int = 1, stretches: bool = True) -> Rules:
    return Rules(profile=PROFILE, step_latents=step, stretches=stretches)


def single_run(frames: int, shots: set[int], step: int) -> list[Join]:
    """Where one worker begins segments, frame by frame."""
    joins, shot = [Join(0, 0)], 0
    for number in range(1, frames):
        shot = number if number in shots else shot
        if begins_segment(number, shot, joins[-1], 4 * step):
            joins.append(Join(number, shot))
    return joins


def planned(planner: Planner, frames: int, shots: set[int], every: int) -> list[Item]:
    """The items, asked for after every so many frames."""
    items = []
    for number in range(planner.start.frame, frames):
        planner.see(number, number in shots)
        if number % every == 0:
            items += planner.items()
    planner.end()
    return items + planner.items()


LENGTHS = st.lists(st.integers(1, 2600), min_size=1, max_size=6)


def cuts(lengths: list[int]) -> tuple[int, set[int]]:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return sum(lengths), set(starts)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 3), st.sampled_from([7, 100, 10**6]), st.booleans())
def test_items_are_the_film(lengths: list[int], step: int, every: int, stretches: bool) -> None:
    frames, shots = cuts(lengths)
    items = planned(Planner(rules=rules(step, stretches)), frames, shots, every)
    assert [join for item in items for join in item.joins] == single_run(frames, shots, step)
    for item, after in pairwise(items):
        assert item.following == after.joins[0] and item.end == after.first
    assert items[-1].following is None and items[-1].end == frames
    for item in items:
        later = min((shot for shot in shots if shot >= item.end), default=frames)
        assert item.first_read <= item.first < item.end <= item.stop <= later
        assert item.ends_shot == (item.stop == later)
        assert item.ends_shot or item.stop >= item.end + 4 * PROFILE.window_latents
        assert item.shots == {shot for shot in shots if item.first_read <= shot < item.stop}
        if item.checked:
            assert stretches
            previous = items[items.index(item) - 1]
            assert previous.end - previous.first >= STRETCH_FRAMES
            assert later - item.first >= REST_FRAMES


@settings(deadline=None)
@given(LENGTHS, st.sampled_from([7, 100]), st.sampled_from([50, 10**6]))
def test_the_plan_does_not_depend_on_when_it_is_asked_for(
    lengths: list[int], every: int, other: int
) -> None:
    frames, shots = cuts(lengths)
    one = planned(Planner(rules=rules()), frames, shots, every)
    assert one == planned(Planner(rules=rules()), frames, shots, other)


@settings(deadline=None)
@given(LENGTHS, st.data())
def test_what_is_there_is_not_done_again(lengths: list[int], data: st.DataObject) -> None:
    frames, shots = cuts(lengths)
    joins = single_run(frames, shots, 1)
    begun = data.draw(st.integers(0, len(joins) - 1))
    ahead = data.draw(st.sets(st.sampled_from(joins[begun:])))
    start = joins[begun]
    done = {join.frame for join in ahead if join != start}
    planner = Planner(rules=rules(), done=done, start=start)
    items = planned(planner, frames, shots, 100)
    given_out = [join for item in items for join in item.joins]
    assert given_out == [join for join in joins[begun:] if join.frame not in done]
    for item in items:
        place = joins.index(item.joins[-1]) + 1
        assert item.following == (joins[place] if place < len(joins) else None)


def test_a_long_shot_alone_is_cut_only_where_workers_are_alike() -> None:
    planner = Planner(rules=rules(stretches=False))
    (item,) = planned(planner, 3000, {0}, 100)
    assert len(item.joins) == 25 and item.entry.encoded == 0
    items = planned(Planner(rules=rules()), 3000, {0}, 100)
    assert [item.first for item in items] == [0, 961, 1921]
    assert all(320 <= item.first - item.first_read <= 344 for item in items[1:])


def test_from_the_shots_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_items, "STRETCH_FRAMES", 480)
    _, item = planned(Planner(rules=rules()), 1000, {0}, 100)
    assert item.first_read > 0
    exact = item.from_shot_start()
    assert exact.first_read == 0 and exact.joins == item.joins and exact.stop == item.stop
