"""Buffers in one piece of memory: none over another, borders known, the size found beforehand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.engines.static_arena import Arena

HALF = torch.float16
# What happens to an arena: a picture of so many pixels is taken, or the n-th living one given back.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 40), st.sampled_from([HALF, torch.float32])),
        st.tuples(st.just("give"), st.integers(0, 5), st.just(HALF)),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_lives_is_never_written_over(steps: list[tuple[str, int, torch.dtype]]) -> None:
    """Laid out once for the size, then with memory of that size, every tensor full of its number."""
    sized, real = Arena(), None
    for arena in (sized, real):
        arena = arena or Arena(torch.zeros(sized.size, dtype=torch.uint8))
        living: list[tuple[torch.Tensor, int]] = []
        for number, (what, size, dtype) in enumerate(steps):
            if what == "take":
                x = arena.take((1, 3, size, 8), dtype)
                if arena is not sized:
                    x.fill_(number)
                living.append((x, number))
            elif living:
                arena.give_back(living.pop(size % len(living))[0])
        if arena is not sized:
            assert all(bool((x == number).all()) for x, number in living)
            assert arena.size == sized.size


def test_a_border_stays_clean_until_something_else_lies_there() -> None:
    arena, picture = Arena(), (2, 4, 5, 8)
    first, clean = arena.take_bordered(picture, HALF)
    assert not clean
    arena.give_back(first)
    again, clean = arena.take_bordered(picture, HALF)
    assert clean  # the same place, and nobody was there
    arena.give_back(again)
    other = arena.take((16,), torch.float32)
    arena.give_back(other)
    assert arena.take_bordered(picture, HALF)[1] is False
    assert arena.take_bordered(picture, HALF)[1] is False  # a second one lies elsewhere


def test_an_arena_of_another_stage_is_too_small() -> None:
    arena = Arena(torch.zeros(100, dtype=torch.uint8))
    assert arena.take((1, 40), HALF).shape == (1, 40)
    with pytest.raises(ValueError, match="an arena of 100 bytes has no room up to 296"):
        arena.take((1, 20), HALF)
