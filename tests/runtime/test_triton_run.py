"""Whole runs on the triton backend with every stage on a recorded device, and where it cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fake_model import make_fake_model
from tests.media import make_video, read_frames
from tests.recorded_device import RecordedDevice
from tests.runtime.test_device_run import EXACT, FILM, NETWORKS
from tests.runtime.test_serving import add_engines

pytest.importorskip("triton")

from tests.triton_runs import stand_in

from vr_trt import Restorer
from vr_trt.engines import triton_pixels
from vr_trt.engines.selection import Machine
from vr_trt.errors import ModelError
from vr_trt.runtime import recipe, serving, triton_loop
from vr_trt.runtime.restorer import Report
from vr_trt.runtime.run_options import RunOptions

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedDevice:
    """An invented card with engines of the fake model, under the name of the 3B."""
    device = RecordedDevice()
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    folder = make_fake_model(tmp_path / "model")
    add_engines(folder, EXACT, backend="triton", targets=(89,), precision="bf16")
    stand_in(monkeypatch, device, NETWORKS)
    here = frozenset({"onnxruntime", "triton"})
    card = Machine(sm=89, memory=32 << 30, installed=here, runs=serving.SESSIONS)
    monkeypatch.setattr(serving, "this_machine", lambda: card)
    return device


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in.mkv", frames=30, size=FILM)


def run(film: Path, name: str, **options: Any) -> tuple[Report, NDArray[np.uint8]]:
    out = film.with_name(f"{name}.mkv")
    with Restorer(model="seedvr2-3b", profile="360p", backend="triton", precision="bf16") as made:
        report = made.restore(film, out, options=RunOptions(**options))
    return report, np.stack([frame.to_ndarray() for frame in read_frames(out)])


def fed_by_the_host(film: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "on_one_gpu", lambda selection: False)
        return run(film, "host")[1]


def test_a_file_is_that_of_the_host_s_feeding(
    device: RecordedDevice, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = film.with_name("trace.json")
    report, ours = run(film, "loop", trace=trace)
    assert not [line for line in report.warnings if "CPU" in line or "host feeds" in line]
    assert device.asked.count("replay") > 100 and device.leaks() == ["1 x stream"]
    theirs = fed_by_the_host(film, monkeypatch)
    assert len(theirs) == 30 and np.array_equal(theirs, ours)
    rows = {e["args"]["name"] for e in json.loads(trace.read_text()) if e["name"] == "thread_name"}
    assert {f"device: {name}" for name in ("upload", "pre", "main", "post", "download")} <= rows


def test_pixels_without_a_kernel_are_the_cpu_s(
    device: RecordedDevice, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a resize of 9000 to 12 columns reduces too much at once")

    monkeypatch.setattr(triton_pixels, "ToModel", refuse)
    report, ours = run(film, "loop")
    said = [line for line in report.warnings if "CPU" in line or "host feeds" in line]
    why = "no kernel of to_model serves this video: a resize of 9000 to 12 columns"
    assert said == [f"the pixels' stages run on the CPU: {why} reduces too much at once"]
    assert len(ours) == 30 and "replay" not in device.asked


def test_without_a_loop_the_host_feeds_the_kernels(
    device: RecordedDevice, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ModelError("cuda-python is not installed")

    monkeypatch.setattr(triton_loop, "cuda_device", refuse)
    report, ours = run(film, "loop")
    said = [line for line in report.warnings if "CPU" in line or "host feeds" in line]
    line = "the host feeds the GPU's stages one by one, and waits for each: cuda-python is not"
    assert said == [f"{line} installed"]
    assert "replay" not in device.asked
    assert np.array_equal(fed_by_the_host(film, monkeypatch), ours)


def test_a_plan_counts_the_rings(device: RecordedDevice, film: Path) -> None:
    with Restorer(model="seedvr2-3b", profile="360p", backend="triton", precision="bf16") as made:
        plan = made.plan(film)
    # 45 frames of 64x48 wait; x and decoded x of five frames, two slots each, in bf16; and more.
    assert plan.rings is not None
    assert plan.rings.device > 4 * 2 * 3 * 5 * EXACT.width * EXACT.height and plan.rings.host > 0
