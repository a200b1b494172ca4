"""Tables of calibration: what they hold, whose they are, and what they leave wide."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.networks import loud_weights, normal
from torch import Tensor

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.calibrate import Judge, Magnitudes, Sample, amax_of, generate, observe
from vr_trt.export.calibration_table import (
    RECIPE,
    CalibrationTable,
    check_method,
    find_calibration,
    gate_path,
    table_path,
)
from vr_trt.export.config import generator_3b_style
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.fp8 import scale_exponent
from vr_trt.export.fp8_network import block_linears, quantise_network, quantised_linears
from vr_trt.export.models import find_model_files

SMALL = generator_3b_style(width=16, heads=2, head_width=8, layers=3, text_width=6, shared_from=1)
TEXT = normal(3, 6)


def sample(seed: int, rows: int = 4, columns: int = 6, channels: int = 16) -> Sample:
    random = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(1, channels, 3, rows, columns, generator=random)

    return Sample(draw(), draw(), draw())


@pytest.fixture(scope="module")
def folded() -> FoldedGenerator:
    return fold_generator(SMALL, loud_weights(SMALL), TEXT)


def table_of(folded: FoldedGenerator, samples: list[Sample]) -> CalibrationTable:
    amax = amax_of(observe(folded, samples), "amax")
    return CalibrationTable(
        model="small", weights="0" * 64, method="amax", clips=("a.mp4",), windows=1, amax=amax
    )


def test_inputs_of_video_and_text_are_told_apart(folded: FoldedGenerator) -> None:
    found = observe(folded, [sample(0), sample(1)])
    # Block 0 has weights for each, 1 shares them, and the last needs the text's keys alone.
    blocks = {
        "blocks.0": ("video", "text"),
        "blocks.1": ("video", "text"),
        "blocks.2": ("video",),
    }
    wanted = {
        f"{block}.{branch}.{kind}"
        for block, branches in blocks.items()
        for branch in branches
        for kind in ("qkv", "out", "mlp_in", "mlp_out")
    } | {"blocks.2.text.kv"}
    assert found.keys() == wanted
    tokens = 3 * 2 * 3
    assert found["blocks.1.video.qkv"].counts.sum() == 2 * tokens * 16
    assert found["blocks.1.text.qkv"].counts.sum() == 2 * len(TEXT) * 16


def test_the_peak_is_the_largest_of_all_samples(folded: FoldedGenerator) -> None:
    seen: list[float] = []
    linear = block_linears(folded)["blocks.0.video.mlp_out"]
    handle = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().max()))
    found = observe(folded, [sample(0), sample(1)])["blocks.0.video.mlp_out"]
    handle.remove()
    assert len(seen) == 2 and found.peak == max(seen) == found.amax("amax")
    generate(folded, sample(0).noise, sample(0).latent)
    assert found.peak == max(seen)  # nobody listens any more


def test_methods_see_what_is_rare() -> None:
    magnitudes = Magnitudes()
    magnitudes.add(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    magnitudes.add(torch.tensor([1500.0, 0.0]))
    assert magnitudes.amax("amax") == 1500
    assert 1 <= magnitudes.amax("percentile") < 1.1
    # One value in 200,000 that is lost costs more than all the others' rounding.
    assert scale_exponent(magnitudes.amax("mse")) == scale_exponent(1500.0)


@pytest.mark.parametrize("exponent", [-8, -5, -2])
def test_the_expected_error_is_the_real_one(exponent: int) -> None:
    from vr_trt.export.fp8 import rounded

    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    magnitudes = Magnitudes()
    magnitudes.add(x)
    real = float((rounded(x, exponent) - x).square().mean())
    assert magnitudes.rounding_error(exponent) == pytest.approx(real, rel=0.15)


def test_linears_stay_wide_until_the_aim_is_met(
    folded: FoldedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [sample(0)]
    judge, table = Judge.of(folded, samples), table_of(folded, samples)
    assert judge.widened(table) == table  # random weights: another seed changes everything
    whole = judge.error(quantise_network(folded, table))
    alone = judge.sensitivity(table)
    assert list(alone) == sorted(alone, key=lambda name: -alone[name])
    assert set(alone) == set(quantised_linears(folded, table)) and min(alone.values()) > 0
    monkeypatch.setattr(Judge, "other_seed", lambda self: whole / 2)
    widened = judge.widened(table)
    assert widened.wide and widened.wide == tuple(alone)[: len(widened.wide)]
    assert judge.error(quantise_network(folded, widened)) < whole
    sizes = {name: linear.weight.numel() for name, linear in block_linears(folded).items()}
    assert sum(sizes[name] for name in widened.wide) <= 0.25 * sum(sizes.values())


def test_good_scales_of_nano_pass_and_bad_ones_are_far_worse() -> None:
    files = find_model_files("nano")
    folded = fold_generator(files.generator, files.load_generator(), files.load_text())
    samples = [sample(seed, 12, 20, 48) for seed in range(2)]
    judge, table = Judge.of(folded, samples), table_of(folded, samples)
    good = judge.error(quantise_network(folded, table))
    assert good < 0.5 * judge.other_seed()
    bad = replace(table, amax={name: amax / 16 for name, amax in table.amax.items()})
    # nano's blocks change little, so even these do not reach another seed's distance.
    assert judge.error(quantise_network(folded, bad)) > 20 * good


def test_a_table_is_written_and_read(folded: FoldedGenerator, tmp_path: Path) -> None:
    path, table = tmp_path / "generator.fp8.json", table_of(folded, [sample(0)])
    replace(table, wide=("blocks.0.video.qkv",)).write(path)
    assert CalibrationTable.read(path) == replace(table, wide=("blocks.0.video.qkv",))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_table_of_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    weights = tmp_path / "generator.safetensors"
    path = table_path(weights)
    assert path.name == "generator.fp8.json"
    with pytest.raises(ModelError, match=r"no calibration table .*generator\.fp8\.json: make one"):
        find_calibration(weights, "1" * 64)
    table = CalibrationTable(
        model="other", weights="0" * 64, method="mse", clips=(), windows=1, amax={"a": 1.0}
    )
    table.write(path)
    with pytest.raises(ModelError, match=r"fp8\.json calibrates other weights of other \(000000"):
        find_calibration(weights, "1" * 64)
    assert find_calibration(weights, "0" * 64).table == table


def test_the_verdict_of_another_table_does_not_count(tmp_path: Path) -> None:
    weights = tmp_path / "generator.safetensors"
    path = table_path(weights)
    CalibrationTable(
        model="m", weights="0" * 64, method="mse", clips=(), windows=1, amax={"a": 1.0}
    ).write(path)
    assert find_calibration(weights, "0" * 64).gate is None
    digest = find_calibration(weights, "0" * 64).sha256
    assert gate_path(path) == tmp_path / "generator.fp8-gate.json"
    for verdict, counts in (
        ({"calibration": digest, "recipe": RECIPE}, True),
        ({"calibration": "f" * 64, "recipe": RECIPE}, False),
        ({"calibration": digest, "recipe": RECIPE + 1}, False),  # numbers of another version
    ):
        gate_path(path).write_text(json.dumps(verdict))
        assert (find_calibration(weights, "0" * 64).gate is not None) == counts
    for text in ("?", "[]"):
        gate_path(path).write_text(text)
        with pytest.raises(ModelError, match="no verdict"):
            find_calibration(weights, "0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"method": "guess"},
        {"amax": {}},
        {"amax": {"a": -1.0}},
        {"amax": {"a": float("nan")}},
        {"amax": 3},
        {"more": 1},
        {"weights": None, "clips": 5},
    ],
)
def test_what_is_no_table_is_told_so(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    CalibrationTable(
        model="m", weights="0" * 64, method="mse", clips=(), windows=1, amax={"a": 1.0}
    ).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=r"t\.json is no calibration table"):
        CalibrationTable.read(path)


def test_names_that_are_not_there(folded: FoldedGenerator) -> None:
    table = replace(table_of(folded, [sample(0)]), wide=("blocks.9.video.qkv",))
    with pytest.raises(ModelError, match=r"names blocks\.9\.video\.qkv"):
        quantise_network(folded, table)
    with pytest.raises(UsageError, match="unknown method 'best'"):
        check_method("best")
    assert check_method("mse") == "mse"
