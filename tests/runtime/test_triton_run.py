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
from vr_trt.cli import exit_code
from vr_trt.engines import triton_card, triton_pixels
from vr_trt.engines.cache import Engine
from vr_trt.engines.selection import Machine
from vr_trt.engines.triton_card import CardBytes
from vr_trt.errors import MemoryBudgetError, ModelError, UsageError
from vr_trt.runtime import card_choice, recipe, serving, triton_loop
from vr_trt.runtime import plan as planning
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


def run(
    film: Path, name: str, card_memory: float | None = None, **options: Any
) -> tuple[Report, NDArray[np.uint8]]:
    out = film.with_name(f"{name}.mkv")
    with restorer(card_memory) as made:
        report = made.restore(film, out, options=RunOptions(**options))
    return report, np.stack([frame.to_ndarray() for frame in read_frames(out)])


def restorer(card_memory: float | None = None) -> Restorer:
    return Restorer(
        model="seedvr2-3b", profile="360p", backend="triton", precision="bf16",
        card_memory=card_memory,
    )  # fmt: skip


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
    with restorer() as made:
        plan = made.plan(film)
    # 45 frames of 64x48 wait; x and decoded x of five frames, two slots each, in bf16; and more.
    assert plan.rings is not None
    assert plan.rings.device > 4 * 2 * 3 * 5 * EXACT.width * EXACT.height and plan.rings.host > 0


LINE = "encoder, generator and decoder take turns on the card, which spares 4.3 GB there and moves 0.67"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines whose manifests say that they need much of the card: 11 GiB and some."""

    def said(engine: Engine, sm: int) -> CardBytes:
        stage, weights = engine.spec.stage, 0
        states = {"encode": 2, "decode": 4}.get(stage.partition("_")[0], 0) << 30
        if stage.startswith("generator"):
            weights = 2 << 30
        return CardBytes(own=weights + (1 << 20), arena=3 << 30, states=states, weights=weights)

    monkeypatch.setattr(triton_card, "stage_bytes", said)


def test_parts_take_turns_on_a_card_that_is_too_small(
    device: RecordedDevice, film: Path, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So with the loop, and so where the host feeds the networks."""
    plain, frames = run(film, "plain")
    assert not [line for line in plain.warnings if "turns" in line]
    report, ours = run(film, "turns", card_memory=9, report=film.with_name("report.json"))
    (said,) = [line for line in report.warnings if "turns" in line]
    assert said == f"{LINE} GB a frame"
    assert said in json.loads(film.with_name("report.json").read_text())["warnings"]
    assert np.array_equal(ours, frames) and device.leaks() == ["1 x stream"]
    copied = device.asked.count("upload")
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "on_one_gpu", lambda selection: False)
        _, fed = run(film, "fed", card_memory=9)
    assert np.array_equal(fed, frames) and device.asked.count("upload") > copied
    assert device.leaks() == ["1 x stream"]


def test_a_plan_says_who_takes_turns(device: RecordedDevice, film: Path, large: None) -> None:
    with restorer() as made:
        plain = made.plan(film)
    with restorer(card_memory=9) as made:
        plan = made.plan(film)
    assert plain.serving.rota.sizes == {} and plan.fits and plan.rings is not None
    assert [*plan.serving.rota.sizes] == ["encoder", "generator", "decoder"]
    assert plan.host_bytes == plan.serving.rota.mirrors + plan.rings.host > 3 * (2 << 30)
    assert plain.serving.card is not None and plan.serving.card is not None
    assert plain.serving.card.needed - plan.serving.card.needed == 4 << 30
    assert any(line.startswith(LINE) for line in plan.serving.remarks)


def test_the_rings_may_decide_who_takes_turns(
    device: RecordedDevice, film: Path, large: None
) -> None:
    with restorer() as made:
        plan = made.plan(film)
    assert plan.serving.card is not None and plan.rings is not None
    without = (plan.serving.card.needed - plan.rings.device) / (1 << 30) / 0.95
    for more, count in ((0.001, 2), (plan.rings.device / (1 << 30) / 0.95 + 0.001, 0)):
        with restorer(card_memory=without + more) as made:
            assert len(made.plan(film).serving.rota.sizes) == count


def test_a_host_without_room_is_refused_before_the_first_frame(
    device: RecordedDevice,
    film: Path,
    large: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(planning, "available_bytes", lambda: 6 << 30)
    arguments = [str(film), "--model", "seedvr2-3b", "--profile", "360p", "--backend", "triton"]
    arguments += ["--precision", "bf16", "--card-memory", "9"]
    assert exit_code(["plan", *arguments, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["take_turns"] == ["encoder", "generator", "decoder"] and not shown["fits"]
    assert shown["moved_mib_a_frame"] == 5 * 2048 // 16  # five copies, every sixteen frames
    assert shown["page_locked_mib"] >= 6 * 1024 and shown["peak_mib"] == shown["page_locked_mib"]
    assert exit_code(["run", *arguments]) == 4
    (line,) = capfd.readouterr().err.splitlines()
    assert "take turns on the card, which takes" in line and "6144 MiB are free" in line
    assert "replay" not in device.asked


@pytest.mark.parametrize(
    ("able", "advice"),
    [
        (True, "--profile .* fits .triton: .*take turns there already"),
        (False, "choose a smaller --profile.*cuda-python"),
    ],
)
def test_a_card_that_is_too_small_even_so_is_refused(
    device: RecordedDevice,
    film: Path,
    large: None,
    monkeypatch: pytest.MonkeyPatch,
    able: bool,
    advice: str,
) -> None:
    monkeypatch.setattr(card_choice, "_has_cuda_python", lambda: able)
    with pytest.raises(MemoryBudgetError, match=f"usable: {advice}"):
        run(film, "small", card_memory=6 if able else 9)
    with pytest.raises(UsageError, match="0 GB of the card: give more than 0"):
        restorer(card_memory=0)
