"""Counted arithmetic: that of network spec §9, and the halves are the whole."""

import pytest

from vr_trt.bench.stage_work import stage_work
from vr_trt.export.stages import StageShape

SHAPE = StageShape(height=368, width=640, latents=6)


def test_the_published_networks_at_720p() -> None:
    shape = StageShape(height=720, width=1280, latents=6)
    work = stage_work("seedvr2-3b", shape, "fp16", cut=False)
    assert work["encode_step"].flops == pytest.approx(33.3e12, rel=0.01)
    assert work["generator"].flops == pytest.approx(115e12, rel=0.01)
    # Folded: a fifth less than the plain decoder's 87.3.
    assert work["decode_step"].flops == pytest.approx(0.79 * 87.3e12, rel=0.01)
    # Its weights, its state twice, its ends.
    weights, state = 2 * 3.39e9, 2 * 2 * 16 * 6 * 90 * 160
    assert work["generator"].bytes == pytest.approx(weights + state, rel=0.05)


def test_a_cut_step_is_the_whole_one() -> None:
    """Four calls of the fine half and one of the coarse one."""
    cut = stage_work("nano", SHAPE, "fp32", cut=True)
    whole = stage_work("nano", SHAPE, "fp32", cut=False)
    for verb in ("encode", "decode"):
        halves = 4 * cut[f"{verb}_fine_step"].flops + cut[f"{verb}_coarse_step"].flops
        assert halves == pytest.approx(whole[f"{verb}_step"].flops, rel=1e-9)
        assert cut[f"{verb}_fine_step"].bytes < whole[f"{verb}_step"].bytes


def test_precision_halves_the_bytes_alone() -> None:
    wide, narrow = (stage_work("nano", SHAPE, p, cut=True) for p in ("fp32", "fp16"))
    for name, stage in wide.items():
        assert narrow[name].flops == stage.flops
        assert 2 * narrow[name].bytes == stage.bytes


def test_only_the_generator_is_held_to_the_ceiling_of_fp8() -> None:
    work = stage_work("nano", SHAPE, "fp8", cut=True)
    assert {name for name, stage in work.items() if stage.unit == "fp8"} == {
        "generator",
        "generator_image",
    }
    assert {stage.unit for stage in stage_work("nano", SHAPE, "fp16", cut=True).values()} == {
        "wide"
    }


def test_a_stranger_has_no_counted_work() -> None:
    assert stage_work("fake", SHAPE, "fp32", cut=False) == {}
