"""The memory law against what TensorRT-RTX said of the plans that it built."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vr_trt.engines.build import BuildRequest, build_engines
from vr_trt.engines.cache import Canvas
from vr_trt.engines.memory_law import (
    NETWORKS,
    Network,
    find_network,
    score_elements,
    split_stage,
    stage_needs,
)
from vr_trt.errors import ModelError

RESULTS = Path(__file__).parents[2] / "bench" / "results"
ROWS: list[dict[str, Any]] = json.loads((RESULTS / "cpu-engine-memory.json").read_text())["rows"]
BLOCKS = 3  # of the generators that were built for those rows
# Stages that decide whether a profile fits: the law is exact there, but for the generator.
DECIDING = ("encode_step", "decode_start", "decode_step", "decode_fine_step")
FULL_HD = Canvas(width=1920, height=1088, latents=6, step=1)


def network_of(row: dict[str, Any]) -> Network:
    if row["network"] not in NETWORKS:
        return NETWORKS["seedvr2-3b"]  # whose VAE is that of all
    network = NETWORKS[row["network"]]
    shared_from = 1  # as they were built
    config = replace(network.generator, layers=BLOCKS, shared_from=shared_from)
    return replace(network, generator=config)


def canvas_of(row: dict[str, Any]) -> Canvas:
    return Canvas(width=row["width"], height=row["height"], latents=row["latents"], step=1)


def name_of(row: dict[str, Any]) -> str:
    return f"{row['network']}-{row['stage']}-{row['profile']}-{row['precision']}-{row['sm']}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_the_law_is_never_below_the_log(row: dict[str, Any]) -> None:
    """And not far above it.

    Activations: at most 0.1 % less than the log; at most 6 % more for the stages that decide, from
    720p on, and 21 % otherwise. Weights: within 1 % and some constants.
    """
    needs = stage_needs(network_of(row), row["stage"], canvas_of(row), row["precision"])
    generator = row["stage"].startswith("generator")
    ratio = needs.activations / row["device_bytes"]
    assert 0.999 <= ratio <= 1.21
    if row["stage"] in DECIDING and row["profile"] != "360p":
        assert ratio <= 1.06
    # The library folds some constants of the picture's size in.
    more = (35 if generator else 15) * row["width"] * row["height"]
    assert abs(needs.weights - row["weight_bytes"]) <= 0.01 * row["weight_bytes"] + more


def test_the_rows_are_of_several_sizes() -> None:
    for stage in ("decode_fine_step", "generator"):
        assert len({row["profile"] for row in ROWS if row["stage"] == stage}) >= 2


def test_both_chips_get_the_same_plan_of_memory() -> None:
    parts = json.loads((RESULTS / "cpu-full-size.json").read_text())["parts"]
    seen = 0
    for part in parts:
        found = {
            sm: {b["stage"]: b["activation_mb"] for b in part["builds"] if b["sm"] == sm}
            for sm in (89, 120)
        }
        if found[89] and found[120]:
            assert found[89] == found[120]
            seen += len(found[120])
    assert seen > 5


def test_the_full_generators_activations_are_those_of_three_blocks_or_less() -> None:
    """The 3B of 32 blocks, built for real: the law says up to 45 % more than its log."""
    parts = json.loads((RESULTS / "cpu-full-size.json").read_text())["parts"]
    network, seen = NETWORKS["seedvr2-3b"], 0
    for part in (p for p in parts if p["network"] == "generator"):
        for build in (b for b in part["builds"] if "activation_mb" in b):
            width, height = {"720p": (1280, 720), "1080p": (1920, 1088)}[part["profile"]]
            canvas = Canvas(width=width, height=height, latents=6, step=1)
            needs = stage_needs(network, "generator", canvas, part["precision"])
            assert 1.0 <= needs.activations / 1e6 / build["activation_mb"] <= 1.45
            # In bf16 at 1080p the library keeps 1.5 GB more than the graph's weights.
            more = 0.19 if (part["profile"], part["precision"]) == ("1080p", "bf16") else 0.01
            assert abs(needs.weights / 1e6 / build["weight_mb"] - 1) < more
            seen += 1
    assert seen


def test_states_are_read_and_written_apart() -> None:
    network = find_network("seedvr2-3b")
    start, step = (
        stage_needs(network, f"decode_fine_{call}", FULL_HD, "fp16") for call in ("start", "step")
    )
    assert start.state_in == 0 and start.state_out == step.state_in == step.state_out
    assert step.state_in == 2 * 3072 * 1920 * 1088  # 3072 elements a pixel
    assert step.working == step.activations + 2 * step.state_in + step.ends


def test_halves_have_the_states_and_weights_of_the_whole() -> None:
    network = find_network("seedvr2-7b")
    for verb in ("encode", "decode"):
        whole, fine, coarse = (
            stage_needs(network, f"{verb}{half}_step", FULL_HD, "bf16")
            for half in ("", "_fine", "_coarse")
        )
        assert whole.state_in == fine.state_in + coarse.state_in
        assert whole.weights == fine.weights + coarse.weights
        assert max(fine.activations, coarse.activations) < 0.65 * whole.activations


def test_precision_counts_by_its_bytes() -> None:
    network = find_network("seedvr2-3b")
    wide, half, quarter = (
        stage_needs(network, "generator", FULL_HD, precision)
        for precision in ("fp32", "bf16", "fp8")
    )
    assert wide.weights == 2 * half.weights - 2 * 2 * (6 * 68 * 120) * 8  # indices stay
    assert half.activations == quarter.activations == wide.activations // 2
    assert quarter.weights < 0.51 * half.weights
    assert stage_needs(network, "decode_step", FULL_HD, "fp8") == stage_needs(
        network, "decode_step", FULL_HD, "fp16"
    )


def test_attention_of_large_pictures_is_the_fullest_moment() -> None:
    network = find_network("seedvr2-3b")
    needs = stage_needs(network, "decode_coarse_step", FULL_HD, "fp16")
    scores = score_elements("decode_coarse_step", FULL_HD)
    assert scores == (136 * 240) ** 2
    assert needs.activations == 2 * (2 * scores + 65 * 1920 * 1088)


def test_a_step_of_two_latents_holds_twice_as_much() -> None:
    network, twice = find_network("seedvr2-3b"), replace(FULL_HD, step=2)
    for stage, factor in (("decode_step", 2), ("decode_fine_step", 1), ("decode_start", 1)):
        one, two = (stage_needs(network, stage, c, "fp16") for c in (FULL_HD, twice))
        assert two.activations == factor * one.activations and two.state_in == one.state_in


def test_names() -> None:
    assert split_stage("decode_fine_step") == ("decode", "fine", "step")
    assert split_stage("encode_image") == ("encode", "", "image")
    with pytest.raises(ModelError, match="memory other needs.*seedvr2-3b"):
        find_network("other")


def test_nano_built_now(tmp_path: Path) -> None:
    """The log of a plan that is made in this test, and its law."""
    pytest.importorskip("tensorrt_rtx")
    canvas = Canvas(width=640, height=368, latents=6, step=1)
    request = BuildRequest(
        model="nano",
        profile="360p",
        canvas=canvas,
        backend="tensorrt-rtx",
        targets=(89,),
        stages=("decode_fine_step", "decode_coarse_step", "generator"),
    )
    for outcome in build_engines(request, None, tmp_path):
        facts = outcome.engine.about.facts
        needs = stage_needs(find_network("nano"), outcome.stage, canvas, "fp32")
        # For nano's generator, a small one, the law is above the log by more.
        assert (
            0.999
            <= needs.activations / facts["device_bytes"]
            <= (1.1 if outcome.stage == "generator" else 1.01)
        )
        if outcome.stage != "generator":  # whose weights are packed, and masks are among them
            assert abs(needs.weights / facts["weight_bytes"] - 1) < 0.05
