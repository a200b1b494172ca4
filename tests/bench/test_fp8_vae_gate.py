"""The gate of the VAE's fp8: two small windows of nano's, and what is too short."""

import json
from pathlib import Path

import pytest
from tests.networks import normal

from vr_trt.bench import fp8_vae_gate
from vr_trt.bench.clip_windows import ClipWindow
from vr_trt.bench.fp8_vae_gate import judge
from vr_trt.engines.fp8_decoder import Fp8Decoder
from vr_trt.errors import UsageError
from vr_trt.export.fp8_vae import Coder, quantise_coder
from vr_trt.export.models import find_model_files
from vr_trt.runtime.model import Model, find_model

WINDOWS = [ClipWindow("noise", 2 * i, normal(1, 48, 2, 2, 4, seed=i).numpy()) for i in range(2)]


def test_every_window_but_the_first_is_judged() -> None:
    found = judge(WINDOWS, Model(find_model("nano")))
    assert [row["first_latent"] for row in found["windows"]] == [2]
    psnr = found["windows"][0]["psnr"]
    assert 20 < psnr["other_seed"] and 40 < psnr["fp8"] < 80
    assert found["passed"] == (psnr["fp8"] > psnr["other_seed"])
    assert found["quantised_layers"] == 12 == len(found["amax"])


def test_the_report_is_what_an_engine_is_built_by(tmp_path: Path) -> None:
    gate = judge(WINDOWS, Model(find_model("nano")))
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"gate": {**gate, "passed": True}}))
    found = Fp8Decoder.read(report)
    assert found.amax == gate["amax"]
    found.check(find_model_files("nano").sha256(), (89, 90))


def test_a_worse_decoder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def ruined(network: Coder, amax: dict[str, float]) -> Coder:
        return quantise_coder(network, {name: 2e-3 * largest for name, largest in amax.items()})

    monkeypatch.setattr(fp8_vae_gate, "quantise_coder", ruined)
    assert not judge(WINDOWS, Model(find_model("nano")))["passed"]


def test_one_window_is_too_few() -> None:
    with pytest.raises(UsageError, match="none to judge"):
        judge(WINDOWS[:1], Model(find_model("nano")))
