"""Which profiles fit which card and how, the advice made of it, and the table in the documentation."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.pictures import YUV420

from vr_trt.cli import exit_code
from vr_trt.engines.card_budget import CONTEXT_BYTES, Settings, budget, picture_bytes
from vr_trt.engines.card_fits import (
    NEWEST,
    Card,
    Fit,
    advise,
    advise_profile,
    card_table,
    card_use,
    fits,
    largest_fit,
)
from vr_trt.engines.cards import CARDS, GIB, usable_bytes, wide_canvas
from vr_trt.engines.memory_law import NETWORKS, find_network
from vr_trt.engines.profiles import find_profile, load_profiles
from vr_trt.engines.rota import Rota
from vr_trt.engines.selection import Selection
from vr_trt.engines.triton_law import Way, triton_together
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.card_rings import usual_rings
from vr_trt.runtime.device_memory import planned_sizes
from vr_trt.runtime.pixel_stages import Picture

BIG = "seedvr2-3b"
FULL_HD = find_profile("1080p")


def card(size: int, sm: int = NEWEST, *, turns: bool = True) -> Card:
    """Of one that is sold with so many GB."""
    return Card.of(sm, size * GIB, turns=turns)


def test_e4m3_is_the_last_resort_and_what_moves_least_comes_first() -> None:
    found = fits(BIG, find_profile("720p"), card(141))
    assert [f.backend for f in found[:3]] == ["tensorrt", "tensorrt", "triton"]
    assert found[2].settings == "bf16" and found[0].moved == found[2].moved == 0
    assert [f.in_fp8 for f in found] == sorted(f.in_fp8 for f in found) and found[-1].in_fp8 == 2
    tight = fits(BIG, find_profile("720p"), card(16))
    assert {f.backend for f in tight} == {"triton"}
    wide = [f for f in tight if not f.in_fp8]
    assert len(wide) == 1 and wide[0].settings == "bf16, generator and decoder take turns"


def test_a_fit_on_triton_by_hand() -> None:
    frame = wide_canvas(FULL_HD)
    held = triton_together(BIG, frame, Way())
    rest = CONTEXT_BYTES + picture_bytes(frame)
    roomy = largest_on_triton(card(141))
    assert roomy.peak == held.bytes + rest and (roomy.moved, roomy.host) == (0, 0)
    turning = largest_on_triton(card(24))
    rota = Rota(held.parts)
    assert turning.settings == "bf16, all take turns"
    assert turning.peak == held.bytes + rest - rota.spared <= usable_bytes(24 * GIB)
    assert turning.moved == rota.moved // 16 > 0  # six latents, of which two come again
    assert turning.host == rota.mirrors > 0


def largest_on_triton(card: Card) -> Fit:
    return next(f for f in fits(BIG, FULL_HD, card) if f.backend == "triton" and not f.in_fp8)


def test_what_a_chip_has_not_is_not_offered() -> None:
    profile = find_profile("360p")
    old, ampere, no_copies = (
        fits(BIG, profile, c) for c in (card(48, sm=75), card(48, sm=86), card(12, turns=False))
    )
    assert old and all(f.backend == "tensorrt" and f.settings.startswith("fp16") for f in old)
    assert {f.backend for f in ampere} == {"tensorrt", "triton"}
    assert not any(f.in_fp8 for f in ampere)
    assert no_copies and not any(f.moved for f in no_copies)


def test_tensors_of_2_to_the_31_are_not_offered() -> None:
    huge = Card(sm=NEWEST, usable=10**13)
    assert {f.backend for f in fits(BIG, find_profile("1440p"), huge)} == {"triton"}
    assert [f.backend for f in fits(BIG, FULL_HD, huge) if f.backend == "tensorrt"]
    wider = replace(wide_canvas(find_profile("2160p")), width=3888)
    assert not fits(BIG, find_profile("2160p"), huge, canvas=wider)


@pytest.mark.parametrize("model", NETWORKS)
def test_larger_cards_never_do_less(model: str) -> None:
    sides = []
    for size in CARDS:
        fit = largest_fit(model, card(size))
        assert fit is None or fit.peak <= usable_bytes(size * GIB) < size * GIB
        sides.append(fit.profile.short_side if fit else 0)
    assert sides == sorted(sides) and sides[-1]


@pytest.mark.parametrize("backend", ["tensorrt", "triton"])
def test_the_table_counts_the_rings_of_the_loop(backend: str) -> None:
    plain, more = (
        next(f for f in fits(BIG, FULL_HD, card(141), beside) if f.backend == backend)
        for beside in (lambda *given: 0, usual_rings)
    )
    selection = Selection(
        canvas=wide_canvas(FULL_HD), how="exact", engines={}, precision="bf16", notes=(),
        backends=dict.fromkeys(("encoder", "generator", "decoder"), backend),
    )  # fmt: skip
    sizes = canvas(16, 9, FULL_HD.short_side)
    picture = Picture(width=sizes.out_w, height=sizes.out_h, pixel=YUV420)
    rings = planned_sizes(selection, FULL_HD, picture, picture).rings.device
    assert more.peak - plain.peak == rings > 0


def test_where_tensorrt_has_no_room_the_advice_is_triton_first() -> None:
    frame, settings = wide_canvas(FULL_HD), Settings(precision="bf16", cut=True, starts_stay=True)
    used = card_use(BIG, frame, settings, card(32), FULL_HD, usual_rings)
    assert used and not used.fits
    assert used.needed == budget(find_network(BIG), frame, settings).peak
    best = next(f for f in fits(BIG, FULL_HD, card(32), usual_rings))
    assert used.advice == f"--backend triton fits ({best.settings})" and best.backend == "triton"
    old = advise(BIG, FULL_HD, frame, card(24, sm=75), usual_rings)
    assert old == "--profile 540p fits (tensorrt: fp16, VAE whole)"
    assert advise_profile(BIG, card(1), usual_rings) == "choose a smaller --profile"
    assert advise_profile("mine", card(141), usual_rings) == "choose a smaller --profile"
    assert card_use("mine", frame, settings, card(24), FULL_HD) is None


def test_nothing_fits_nothing() -> None:
    assert largest_fit(BIG, Card(sm=NEWEST, usable=CONTEXT_BYTES)) is None


def test_the_table_offers_16_bits_and_more_only_where_e4m3_gives_more() -> None:
    lines = card_table((BIG,), usual_rings)[2:]
    by_card = {size: [x for x in lines if x.startswith(f"| {size} GB |")] for size in CARDS}
    assert sum(map(len, by_card.values())) == len(lines)
    sides = {name: p.short_side for name, p in load_profiles().items()}
    for size, rows in by_card.items():
        wide = largest_fit(BIG, card(size), usual_rings, fp8=False)
        best = largest_fit(BIG, card(size), usual_rings)
        assert best
        found = [row.split(" | ")[2] for row in rows]
        assert found[-1] == best.profile.name, rows
        assert len(found) == 1 + (wide is not None and wide.profile != best.profile)
        assert [sides[name] for name in found] == sorted({sides[name] for name in found})
        alone = largest_fit(BIG, card(size), usual_rings, backends=["tensorrt"])
        said = f"{alone.profile.name}, {alone.settings}" if alone else "none"
        assert rows[-1].endswith(f"| {said} |")


def test_the_documentation_shows_the_commands_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["profiles", "--cards"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert printed == card_table(("seedvr2-3b", "seedvr2-7b"), usual_rings)
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text().splitlines()
    start = page.index(printed[0])
    assert page[start : start + len(printed)] == printed
