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


def play(arena: Arena, steps: list[tuple[str, int, torch.dtype]]) -> Arena:
    """Every tensor is full of its number as long as it lives."""
    living: list[tuple[torch.Tensor, int]] = []
    for number, (what, size, dtype) in enumerate(steps):
        if what == "take":
            living.append((arena.take((1, 3, size, 8), dtype).fill_(number), number))
        elif living:
            x, full_of = living.pop(size % len(living))
            assert arena.device.type == "meta" or bool((x == full_of).all())
            arena.give_back(x)
    assert arena.device.type == "meta" or all(bool((x == number).all()) for x, number in living)
    return arena


@given(STEPS, st.booleans())
def test_what_lives_is_never_written_over(
    steps: list[tuple[str, int, torch.dtype]], packs: bool
) -> None:
    """Laid out for the size, then with memory of that size; packed or as it comes."""
    sized = play(Arena(), steps)
    real = [Arena(torch.zeros(sized.size, dtype=torch.uint8))]
    if packs:
        places = sized.packed()
        size = max((place.end for place in places), default=0)
        real = [Arena(), Arena(torch.zeros(size, dtype=torch.uint8))]
        for arena in real:
            arena.follow(places)
    assert len({play(arena, steps).size for arena in real}) == 1


def test_packing_finds_the_room_that_the_first_gap_does_not() -> None:
    """Half as much lies below the large one while it is there, and nothing fits in its place."""

    def stage(arena: Arena) -> int:
        small = arena.take((128,), torch.uint8)
        large = arena.take((1024,), torch.uint8)
        arena.give_back(small)
        arena.take((512,), torch.uint8)
        arena.give_back(large)
        return arena.size

    rehearsal = Arena()
    assert stage(rehearsal) == 256 + 1024 + 512
    packed = Arena()
    packed.follow(rehearsal.packed())
    assert stage(packed) == 1024 + 512


def test_places_of_another_stage_are_refused() -> None:
    rehearsal, other = Arena(), Arena()
    rehearsal.take((10,), HALF)
    other.follow(rehearsal.packed())
    with pytest.raises(ValueError, match="was laid out without"):
        other.take((11,), HALF)


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
