"""The memory law summed up over a run by TensorRT, and the canvas of a profile."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.engines.card_budget import (
    CONTEXT_BYTES,
    Settings,
    budget,
    largest_tensor,
    video_stages,
)
from vr_trt.engines.cards import wide_canvas
from vr_trt.engines.memory_law import find_network, stage_needs
from vr_trt.engines.profiles import find_profile, load_profiles
from vr_trt.export.stages import StageShape
from vr_trt.export.tensor_sizes import largest_tensors
from vr_trt.runtime.canvas import canvas

BIG = find_network("seedvr2-3b")
FULL_HD = wide_canvas(find_profile("1080p"))
NO_YES = (False, True)
SETTINGS = st.builds(
    Settings,
    precision=st.sampled_from(["bf16", "fp8"]),
    cut=st.booleans(),
    streamed=st.booleans(),
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
    assert found.peak == found.stages[found.fullest]


@given(SETTINGS, st.sampled_from([*load_profiles().values()]))
def test_every_setting_takes_less_and_larger_profiles_more(settings: Settings, row: object) -> None:
    profile = load_profiles()[row.name]  # type: ignore[attr-defined]
    frame = wide_canvas(profile)
    here = budget(BIG, frame, settings).peak
    for change in ({"streamed": True}, {"precision": "fp8"}):
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
