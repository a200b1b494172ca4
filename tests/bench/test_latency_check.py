"""The check before anything is timed: the shipped engines pass it, broken ones do not."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from vr_trt.bench.latency_check import LIMITS, Reference, errors, make_reference, verdict
from vr_trt.bench.plain_networks import PlainNetworks
from vr_trt.export.models import find_model_files
from vr_trt.runtime.model import EMBEDDED, Model

LATENTS = 4  # of a window: enough for the shapes


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Nine frames of 96 x 64: a photograph that moves."""
    frames = [astronaut()[100 : 100 + 64, 150 + 2 * i : 150 + 2 * i + 96] for i in range(9)]
    x = np.stack(frames).astype(np.float32).transpose(3, 0, 1, 2)[None] / 127.5 - 1
    return make_reference(PlainNetworks(find_model_files("nano")), np.ascontiguousarray(x), LATENTS)


def test_the_shipped_engines_are_right(reference: Reference) -> None:
    found = errors(Model(EMBEDDED / "nano"), reference)
    assert verdict(found, "fp32")["state"] == "ok"
    assert all(0 < error < LIMITS["fp32"] / 2 for error in found.values())


@pytest.mark.parametrize("network", ["encoder", "generator", "decoder"])
def test_a_broken_engine_is_found_and_named(
    reference: Reference, tmp_path: Path, network: str
) -> None:
    """One in fifty weights is another: the files are whole, and the result looks like a picture."""
    folder = tmp_path / "nano"
    shutil.copytree(EMBEDDED / "nano", folder)
    weights = np.fromfile(folder / f"{network}.bin", np.float16)
    usual = np.abs(weights) < 10  # what is more is no weight: tables lie there, too
    weights[::50][usual[::50]] /= 2
    weights.tofile(folder / f"{network}.bin")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / f"{network}.bin").read_bytes()
    manifest["sha256"][f"{network}.bin"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = verdict(errors(Model(folder), reference), "fp32")
    assert found["state"] == "wrong" and found["wrong"] == [network]


@pytest.mark.parametrize("error", [float("nan"), float("inf"), 0.0021])
def test_what_is_not_within_the_limit_is_wrong(error: float) -> None:
    found = verdict({"encoder": 0.001, "decoder": error}, "fp32")
    assert found["state"] == "wrong" and found["wrong"] == ["decoder"]
    json.dumps(found, allow_nan=False)


def test_every_precision_has_a_limit_wider_than_the_one_before() -> None:
    assert list(LIMITS) == ["fp32", "fp16", "bf16", "fp8"]
    assert sorted(LIMITS.values()) == list(LIMITS.values())
