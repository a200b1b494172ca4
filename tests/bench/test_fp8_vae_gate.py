"""The gate of the VAE's fp8: two small windows of nano's, its rule, and what is too short."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.networks import normal

from vr_trt.bench import fp8_vae_gate, quality_network
from vr_trt.bench.clip_windows import ClipShot
from vr_trt.bench.fp8_vae_gate import Psnr, judge, verdicts
from vr_trt.engines.fp8_vae import Fp8Vae
from vr_trt.errors import UsageError
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import Coder, fp8_layers, quantise_coder
from vr_trt.export.models import find_model_files
from vr_trt.export.vae import VIDEO

FILES = find_model_files("nano")
COMMITTED = Path(fp8_vae_gate.__file__).with_name("results") / "cpu-fp8-vae-gate.json"
SHOTS = [
    ClipShot("noise", 5 * i, normal(1, 3, 5, 16, 32, seed=i).clamp(-1, 1).numpy()) for i in range(2)
]
BETTER, WORSE = 50.0, 30.0


def judged(**psnr: float) -> Psnr:
    return {"encoder": BETTER, "decoder": BETTER, "both": BETTER, "other_seed": 40.0} | psnr


def names_of_layers() -> dict[str, set[str]]:
    weights = FILES.load_vae()
    encoder = fold_encoder(FILES.vae, weights, VIDEO)
    decoder = fold_decoder(FILES.vae, weights, VIDEO)
    return {"encoder": set(fp8_layers(encoder, 1)), "decoder": set(fp8_layers(decoder, 1))}


@pytest.fixture(scope="module")
def verdict() -> dict[str, Any]:
    return judge(SHOTS, FILES)


def test_every_window_but_the_first_is_judged(verdict: dict[str, Any]) -> None:
    assert [row["first_frame"] for row in verdict["windows"]] == [5]
    psnr = verdict["windows"][0]["psnr"]
    assert set(psnr) == {"encoder", "decoder", "both", "other_seed"}
    assert all(10 < db < 90 for db in psnr.values())  # each changes something, none ruins it
    assert psnr["both"] < max(psnr["encoder"], psnr["decoder"])
    assert verdict["passed"] == verdicts([psnr])
    assert {half: set(amax) for half, amax in verdict["amax"].items()} == names_of_layers()


def test_the_rule_for_both_halves() -> None:
    assert verdicts([judged()]) == {"encoder": True, "decoder": True}
    assert verdicts([judged(), judged(decoder=WORSE)]) == {"encoder": True, "decoder": False}
    assert verdicts([judged(encoder=WORSE), judged()]) == {"encoder": False, "decoder": True}
    assert verdicts([judged(both=WORSE)]) == {"encoder": False, "decoder": True}
    assert verdicts([judged(decoder=WORSE, both=WORSE)]) == {"encoder": True, "decoder": False}


@given(*[st.floats()] * 4)
def test_only_what_is_greater_passes(
    encoder: float, decoder: float, both: float, other: float
) -> None:
    psnr = {"encoder": encoder, "decoder": decoder, "both": both, "other_seed": other}
    found = verdicts([psnr])
    assert found["decoder"] == (decoder > other)
    if found["encoder"]:
        assert encoder > other and (both > other or not decoder > other)
    if math.isnan(other):
        assert not any(found.values())


def test_the_report_is_what_an_engine_is_built_by(verdict: dict[str, Any], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    passed = {"encoder": True, "decoder": True}
    report.write_text(json.dumps({"gate": {**verdict, "passed": passed}}))
    found = Fp8Vae.read(report)
    assert found.amax == verdict["amax"]
    assert found.of("encode_step") == verdict["amax"]["encoder"]
    found.check(FILES.sha256(), (89, 90))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_worse_half_fails_alone(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruined(network: Coder, amax: dict[str, float]) -> Coder:
        of_half = ("down" if half == "encoder" else "up") in "".join(amax)
        return quantise_coder(
            network, {name: (2e-4 if of_half else 1.0) * x for name, x in amax.items()}
        )

    monkeypatch.setattr(quality_network, "quantise_coder", ruined)
    found = judge(SHOTS, FILES)
    psnr = found["windows"][0]["psnr"]
    assert not found["passed"][half] and psnr[half] < psnr["other_seed"] - 3


def test_a_half_that_gives_no_numbers_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: Coder, amax: dict[str, float]) -> Coder:
        made = quantise_coder(network, amax)
        made.conv_out.weight.fill_(math.nan)
        return made

    monkeypatch.setattr(quality_network, "quantise_coder", broken)
    assert judge(SHOTS, FILES)["passed"] == {"encoder": False, "decoder": False}


def test_one_window_is_too_few() -> None:
    with pytest.raises(UsageError, match="none to judge"):
        judge(SHOTS[:1], FILES)


def test_the_committed_verdict_is_of_the_weights_that_ship() -> None:
    gate = json.loads(COMMITTED.read_text())["gate"]
    assert gate["weights"] == FILES.sha256()[FILES.vae_file.name], (
        f"nano's weights are others: python -m vr_trt.bench.fp8_vae_gate --out {COMMITTED}"
    )
    assert {half: set(amax) for half, amax in gate["amax"].items()} == names_of_layers()
    assert gate["passed"] == verdicts([row["psnr"] for row in gate["windows"]])
