"""The schedule of generator windows, against a blend of the whole shot at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vr_trt.runtime.latent_windows import LatentWindows, blend_weights

Array = NDArray[np.float32]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, int, int]:
    """(window, overlap, latents in the shot), the shot at least one window long."""
    window = draw(st.integers(1, 9))
    return window, draw(st.integers(0, window - 1)), draw(st.integers(window, 60))


def shot_of(latents: int) -> Array:
    """[1, 16, n, 1, 1] with each latent's index in it."""
    return np.broadcast_to(
        np.arange(latents, dtype=np.float32)[:, None, None], (1, 16, latents, 1, 1)
    )


def generate(start: int, window: Array) -> Array:
    """A result that depends on the window it was made in, so that the blend is visible."""
    return window + np.float32(100 * start)


def whole_shot(window: int, overlap: int, latents: int) -> Array:
    """The same blend written for a shot that is all there: [n] values."""
    starts = [*range(0, latents - window, window - overlap), latents - window]
    result = np.full(latents, np.nan, np.float32)
    final_to = 0
    for start in starts:
        made = np.arange(start, start + window, dtype=np.float32) + 100 * start
        tail = 0 if start == 0 else overlap
        for i in range(final_to, start + window):
            if i < final_to + tail:
                share = (i - final_to + 1) / (overlap + 1)
                result[i] = (1 - share) * result[i] + share * made[i - start]
            else:
                result[i] = made[i - start]
        final_to = start + window - overlap
    return result


def run(windows: LatentWindows, shot: Array, sizes: list[int]) -> list[Array]:
    """Push `shot` in batches of `sizes` (repeated as needed), then finish."""
    released: list[Array] = []
    start = turn = 0
    while start < shot.shape[2]:
        size = sizes[turn % len(sizes)]
        released += windows.push(shot[:, :, start : start + size])
        start, turn = start + size, turn + 1
    return released + list(windows.finish())


@given(schedules(), st.lists(st.integers(1, 11), min_size=1, max_size=5))
def test_every_latent_once_in_order_and_equal_to_the_whole_shot(
    schedule: tuple[int, int, int], sizes: list[int]
) -> None:
    window, overlap, latents = schedule
    windows = LatentWindows(window, overlap, generate)
    released = np.concatenate(run(windows, shot_of(latents), sizes), axis=2)
    assert released.shape == (1, 16, latents, 1, 1)
    np.testing.assert_allclose(
        released[0, 7, :, 0, 0], whole_shot(window, overlap, latents), rtol=1e-5
    )


@given(schedules())
def test_a_released_latent_never_changes(schedule: tuple[int, int, int]) -> None:
    window, overlap, latents = schedule
    windows = LatentWindows(window, overlap, generate)
    kept, copies = [], []
    for i in range(latents):
        for part in windows.push(shot_of(latents)[:, :, i : i + 1]):
            kept.append(part)
            copies.append(part.copy())
    list(windows.finish())
    for part, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@given(schedules())
def test_weights_sum_to_one(schedule: tuple[int, int, int]) -> None:
    """A generator that gives ones gives ones everywhere, however the windows fall."""
    window, overlap, latents = schedule
    windows = LatentWindows(window, overlap, lambda start, part: np.ones_like(part))
    for part in run(windows, shot_of(latents), [3]):
        np.testing.assert_allclose(part, 1.0, rtol=1e-6)


@given(schedules())
def test_windows_have_one_length_and_end_with_the_shot(schedule: tuple[int, int, int]) -> None:
    window, overlap, latents = schedule
    seen = []

    def record(start: int, part: Array) -> Array:
        np.testing.assert_array_equal(part[0, 0, :, 0, 0], np.arange(start, start + window))
        seen.append(start)
        return part

    run(LatentWindows(window, overlap, record), shot_of(latents), [4])
    assert seen == [*range(0, latents - window, window - overlap), latents - window]


def test_no_more_than_a_window_is_waited_for() -> None:
    windows = LatentWindows(6, 2, generate)
    out = [sum(p.shape[2] for p in windows.push(shot_of(20)[:, :, i : i + 1])) for i in range(14)]
    assert out == [0, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4]


def test_a_short_shot_and_a_wrong_overlap_are_refused() -> None:
    windows = LatentWindows(6, 2, generate)
    list(windows.push(shot_of(5)))
    with pytest.raises(ValueError, match="5 latents is shorter than the window of 6"):
        list(windows.finish())
    with pytest.raises(ValueError, match="overlap of 6"):
        LatentWindows(6, 6, generate)


def test_blend_weights_are_linear() -> None:
    np.testing.assert_allclose(blend_weights(3), [0.25, 0.5, 0.75])
    assert blend_weights(0).shape == (0,)
