"""Which parts take turns: the fewest bytes over the bus that fit, and what that spares."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from vr_trt.engines.rota import (
    GENERATOR,
    NOBODY,
    PARTS,
    Rota,
    best_rota,
    in_words,
    least_rota,
    part_of,
    rotas,
)

SIZES = {"encoder": 76, "generator": 68, "decoder": 143}
sizes = st.fixed_dictionaries({part: st.integers(0, 60) for part in PARTS})


def test_what_each_choice_spares_and_moves() -> None:
    found = {tuple(r.sizes): (r.memory, r.spared, r.mirrors, r.moved) for r in rotas(SIZES)}
    assert found == {
        (): (0, 0, 0, 0),
        ("encoder", "generator"): (76, 68, 2 * 68, 3 * 68),
        ("encoder", "decoder"): (143, 76, 2 * 76, 4 * 76),
        ("generator", "decoder"): (143, 68, 2 * 68, 3 * 68),
        PARTS: (143, 76 + 68, 3 * 68 + 2 * 8, 5 * 68 + 4 * 8),
    }


@pytest.mark.parametrize(
    ("usable", "parts"),
    [
        (1000, ()),
        (999, ("encoder", "generator")),
        (932, ("encoder", "generator")),
        (931, ("encoder", "decoder")),
        (923, PARTS),
        (856, PARTS),
        (855, None),
    ],
)
def test_the_least_is_moved_that_lets_it_fit(usable: int, parts: tuple[str, ...] | None) -> None:
    rota = best_rota(SIZES, 1000, usable)
    assert (None if rota is None else tuple(rota.sizes)) == parts


def simulated(rota: Rota, windows: int) -> int:
    """Bytes copied by `windows` windows within a shot, byte by byte of the shared memory."""
    here = [max(rota.sizes, key=lambda p: rota.sizes[p] > i) for i in range(rota.memory)]
    for part in PARTS * 2:  # everybody has been there
        here[: rota.sizes.get(part, 0)] = [part] * rota.sizes.get(part, 0)
    moved = 0
    for part in PARTS * windows:
        for i in range(rota.sizes.get(part, 0)):
            if here[i] != part:
                moved += 1 + (here[i] != GENERATOR)  # in; and out, what may have changed
                here[i] = part
    return moved


@given(sizes, st.integers(0, 200), st.integers(0, 200))
def test_the_choice_fits_and_no_other_that_fits_moves_less(
    sizes: dict[str, int], needed: int, usable: int
) -> None:
    found = best_rota(sizes, needed, usable)
    fitting = [rota for rota in rotas(sizes) if needed - rota.spared <= usable]
    if found is None:
        assert not fitting and needed - least_rota(sizes).spared > usable
        return
    assert needed - found.spared <= usable
    assert simulated(found, 3) == min(simulated(rota, 3) for rota in fitting)
    assert found == NOBODY or needed > usable


@given(sizes)
def test_what_is_said_of_a_choice_is_what_it_does(sizes: dict[str, int]) -> None:
    for rota in rotas(sizes):
        assert simulated(rota, 4) == 4 * rota.moved
        beside = sum(sizes.values())
        others = sum(size for part, size in sizes.items() if part not in rota.sizes)
        assert beside - rota.spared == others + rota.memory
        assert rota.spared <= least_rota(sizes).spared
        covered = sum(slice.size for slice in rota.slices)
        assert covered == max([0, *sorted(rota.sizes.values())[:-1]])
        assert all(len(slice.parts) > 1 and slice.size > 0 for slice in rota.slices)


def test_names() -> None:
    assert in_words(PARTS) == "encoder, generator and decoder"
    stages = ("encode_start", "generator", "generator_image", "decode_step")
    assert [part_of(stage) for stage in stages] == ["encoder", GENERATOR, GENERATOR, "decoder"]
