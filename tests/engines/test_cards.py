"""What fits which card: the budget of a run, and the table that the documentation shows."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pictures import YUV420

from vr_trt.cli import exit_code
from vr_trt.engines.card_budget import (
    CONTEXT_BYTES,
    Settings,
    budget,
    largest_tensor,
    video_stages,
)
from vr_trt.engines.cards import (
    CARDS,
    GIB,
    LIMIT,
    card_table,
    card_use,
    fits,
    largest_fit,
    usable_bytes,
    wide_canvas,
)
from vr_trt.engines.memory_law import NETWORKS, find_network, stage_needs
from vr_trt.engines.profiles import find_profile, load_profiles
from vr_trt.engines.selection import Selection
from vr_trt.export.stages import StageShape
from vr_trt.export.tensor_sizes import largest_tensors
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.card_rings import usual_rings
from vr_trt.runtime.device_memory import planned_sizes
from vr_trt.runtime.pixel_stages import Picture

BIG = find_network("seedvr2-3b")
FULL_HD = wide_canvas(find_profile("1080p"))
NO_YES = (False, True)
SETTINGS = st.builds(
    Settings,
    precision=st.sampled_from(["bf16", "fp8"]),
    cut=st.booleans(),
    streamed=st.booleans(),
    host_states=st.booleans(),
)


def test_the_stages_of_a_video() -> None:
    assert video_stages(cut=False) == [
        *("encode_start", "encode_step", "generator", "decode_start", "decode_step")
    ]
    assert "decode_fine_step" in video_stages(cut=True) and len(video_stages(cut=True)) == 9


def test_the_sum_of_a_run_by_hand() -> None:
    need = {s: stage_needs(BIG, s, FULL_HD, "bf16") for s in video_stages(cut=False)}
    weights = need["encode_step"].weights + need["generator"].weights + need["decode_start"].weights
    found = budget(BIG, FULL_HD, Settings(precision="bf16"))
    step = need["decode_step"]
    assert found.stages["decode_step"] == (
        CONTEXT_BYTES + weights + step.working + need["encode_step"].state_out
    )
    # Nothing was decoded yet when a shot's first frames are encoded.
    assert found.stages["encode_start"] == CONTEXT_BYTES + weights + need["encode_start"].working
    assert found.moved == 0 and found.peak == found.stages[found.fullest]


def test_states_in_host_memory_leave_the_card_and_are_moved() -> None:
    plain, host = (budget(BIG, FULL_HD, Settings(host_states=h)) for h in NO_YES)
    states = {
        v: stage_needs(BIG, f"{v}_step", FULL_HD, "fp16").state_out for v in ("encode", "decode")
    }
    assert plain.stages["decode_step"] - host.stages["decode_step"] == states["encode"]
    assert host.moved == 2 * sum(states.values()) // 4


@given(SETTINGS, st.sampled_from([*load_profiles().values()]))
def test_every_setting_takes_less_and_larger_profiles_more(settings: Settings, row: object) -> None:
    profile = load_profiles()[row.name]  # type: ignore[attr-defined]
    frame = wide_canvas(profile)
    here = budget(BIG, frame, settings).peak
    for change in ({"streamed": True}, {"host_states": True}, {"precision": "fp8"}):
        assert budget(BIG, frame, replace(settings, **change)).peak <= here
    larger = replace(frame, width=frame.width + 16)
    assert budget(BIG, larger, settings).peak > here


@pytest.mark.parametrize("cut", NO_YES)
@pytest.mark.parametrize("name", ["720p", "1080p", "1440p"])
def test_the_largest_tensor_is_the_largest_of_the_network(name: str, cut: bool) -> None:
    frame = wide_canvas(find_profile(name))
    shape = StageShape(height=frame.height, width=frame.width, latents=6)
    rows = [r for r in largest_tensors(shape, cut=cut) if not r.stage.endswith("image")]
    assert largest_tensor(BIG, frame, cut=cut) == max(r.elements for r in rows)


@pytest.mark.parametrize("profile", load_profiles().values(), ids=lambda p: p.name)
def test_a_profiles_canvas_is_the_runs(profile: object) -> None:
    row = load_profiles()[profile.name]  # type: ignore[attr-defined]
    sizes = canvas(16, 9, row.short_side)
    assert (wide_canvas(row).width, wide_canvas(row).height) == (sizes.padded_w, sizes.padded_h)


def test_fp8_is_the_last_resort_and_what_moves_least_comes_first() -> None:
    found = fits(BIG, find_profile("720p"), usable_bytes(141))
    assert str(found[0].settings) == "bf16, whole" and found[0].budget.moved == 0
    halves = [fit.settings.precision == "fp8" for fit in found]
    assert halves == sorted(halves) and len(found) == 16
    moved = [fit.budget.moved for fit in found if fit.settings.precision == "bf16"]
    assert moved == sorted(moved)


def test_a_profile_whose_tensors_are_too_large_is_not_offered() -> None:
    memory = usable_bytes(141)
    fit, alone = (largest_fit(BIG, memory, indexable=i) for i in (True, False))
    assert fit and fit.profile.name == "1080p" and fit.settings.cut
    assert largest_tensor(BIG, wide_canvas(fit.profile), cut=True) < LIMIT
    assert alone and alone.profile.name == "1440p"


@pytest.mark.parametrize("model", NETWORKS)
def test_larger_cards_never_do_less(model: str) -> None:
    sides = []
    for card in CARDS:
        fit = largest_fit(find_network(model), usable_bytes(card))
        assert fit and fit.budget.peak <= usable_bytes(card) < card * GIB
        sides.append(fit.profile.short_side)
    assert sides == sorted(sides)


@pytest.mark.parametrize("card", CARDS)
def test_the_table_says_what_a_run_is_checked_for(card: int) -> None:
    """The networks' use, and the rings that are sized for the loop itself."""
    fit = largest_fit(BIG, usable_bytes(card), usual_rings)
    assert fit and fit.beside > 0 and fit.peak <= usable_bytes(card)
    used = card_use("seedvr2-3b", wide_canvas(fit.profile), fit.settings, card * GIB, usual_rings)
    assert used and used.advice == f"--profile {fit.profile.name} fits ({fit.settings})"
    selection = Selection(
        canvas=wide_canvas(fit.profile),
        how="exact",
        backends=dict.fromkeys(("encoder", "generator", "decoder"), "tensorrt-rtx"),
        engines={},
        precision=fit.settings.precision,
        notes=(),
    )
    sizes = canvas(16, 9, fit.profile.short_side)
    picture = Picture(width=sizes.out_w, height=sizes.out_h, pixel=YUV420)
    profile = replace(fit.profile, cut=fit.settings.cut)
    rings = planned_sizes(selection, profile, picture, picture).rings.device
    assert used.with_more(rings).needed == fit.peak and used.with_more(rings).fits


def test_what_is_beside_the_networks_may_not_fit() -> None:
    tight = largest_fit(BIG, usable_bytes(24))
    assert tight
    left = usable_bytes(24) - tight.budget.peak
    smaller = largest_fit(BIG, usable_bytes(24), lambda profile, settings: left + 1)
    assert smaller and (smaller.profile, smaller.settings) != (tight.profile, tight.settings)


def test_nothing_fits_nothing() -> None:
    assert largest_fit(BIG, CONTEXT_BYTES) is None


def test_the_documentation_shows_the_commands_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["profiles", "--cards"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert printed == card_table(("seedvr2-3b", "seedvr2-7b"), usual_rings)
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text().splitlines()
    start = page.index(printed[0])
    assert page[start : start + len(printed)] == printed
