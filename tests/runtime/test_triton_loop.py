"""The loop on the triton backend: frames are those of the host that feeds it, and order is checked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.device_runs import YUV8, YUV10, assert_equal, check_shots, restored
from tests.engine_graphs import make_spec
from tests.kernel_runs import run
from tests.recorded_device import RaceError
from tests.runtime.test_device_stages import WAITS, check_left_out

pytest.importorskip("triton")

from tests.triton_runs import TritonSetting

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.selection import Selection
from vr_trt.engines.triton_memory import _storages, _tensors
from vr_trt.runtime import triton_loop
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_memory import on_one_gpu, planned_sizes
from vr_trt.runtime.frames import PixelFormat
from vr_trt.runtime.pixel_stages import Picture, PixelWay
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.triton_pixels import open_way, open_way_in
from vr_trt.runtime.triton_session import TritonSession

CHOICES: list[dict[str, Any]] = [
    {},
    {"step": 2, "overlap": 2, "correction": "adain"},
    {"pixel": YUV10, "correction": "none"},
]
SESSIONS_OWN = ["1 x stream"]  # what stays when a loop is closed: that of the networks


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_frames_are_those_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    setting = TritonSetting(folder=tmp_path / "model", **choices)
    stages = setting.on_device(monkeypatch)
    with setting.device.loop():
        check_shots(setting, stages, assert_equal)
    stages.close()
    assert setting.device.leaks() == SESSIONS_OWN


def test_a_picture_among_shots_shares_their_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes the host's way, on the memory that the loop's coders work on."""
    setting = TritonSetting(folder=tmp_path / "model")
    setting.prepare(monkeypatch)
    model = setting.model()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    for count in (23, 1, 30):
        frames = setting.frames(count, seed=count)
        shot = Shot(stages.begin(setting.host_stages(model)), setting.profile)
        assert_equal(restored(shot, frames), restored(setting.shot_on_host(), frames))
    stages.close()


def test_the_host_waits_only_for_slots_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = TritonSetting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    setting.device.asked.clear()

    def refuse(*_: object) -> None:
        raise AssertionError("a session is fed by the host within the loop")

    monkeypatch.setattr(TritonSession, "enqueue", refuse)
    with setting.device.loop():
        shot = Shot(stages.begin(SimpleNamespace()), setting.profile)
        restored(shot, setting.frames(47))
    asked = setting.device.asked
    uploads, downloads = asked.count("upload"), asked.count("download")
    assert downloads == 47 and asked.count("wait_for") == uploads + downloads
    # 49 frames go in and are decoded; two windows beyond the first; 13 latents, the first call two.
    pixels, coders = 49 + 2 * 47, 2 * 12
    windows = 1 + -(-(13 - 6) // 5)
    assert asked.count("replay") == pixels + coders + windows
    stages.close()


@pytest.mark.parametrize(("ring", "event"), WAITS)
@pytest.mark.parametrize("left_out", ["wait", "record"])
def test_a_wait_that_is_left_out_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: str, event: str, left_out: str
) -> None:
    check_left_out(TritonSetting(folder=tmp_path / "model"), monkeypatch, ring, event, left_out)


def test_a_network_on_another_stream_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coders share one arena: they may not run beside each other."""
    setting = TritonSetting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    step = stages._networks.decoder[0]._steps[0]
    monkeypatch.setattr(step, "_stream", stages._lanes.post)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="may still use"):
        restored(shot, setting.frames(47))


def test_a_session_on_two_streams_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """to_model runs for the networks and for the correction, each on tensors of its own."""
    setting = TritonSetting(folder=tmp_path / "model")
    setting.prepare(monkeypatch)
    shared = open_way_in(setting.way, "cpu")
    monkeypatch.setattr(triton_loop, "open_way_in", lambda way: shared)
    stages = device_stages(setting.model(), setting.way, setting.profile, seed=7)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="may still use"):
        restored(shot, setting.frames(47))


def test_a_place_that_is_not_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = TritonSetting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    generator = stages._networks.generator
    with pytest.raises(RuntimeError, match="noise has a place of its own"):
        generator.bind("noise", generator.places["latent"])
    stages.close()


def test_memory_is_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop takes of the device is what its sizes say, and a plan says the same."""
    for choices in CHOICES:
        setting = TritonSetting(folder=tmp_path / str(CHOICES.index(choices)), **choices)
        before = sum(map(len, setting.device.memory.values()))
        stages = setting.on_device(monkeypatch)
        device, sizes = setting.device, stages._sizes
        taken = sum(len(x) for address, x in device.memory.items() if address not in device.lent)
        assert taken - before == sum(sizes.device_rings().values())
        locked = sum(len(x.memory) for x in device.locked.values())
        assert locked == sum(sizes.host_rings().values())
        padded, way = setting.canvas, setting.way
        built = Canvas(
            width=padded.padded_w, height=padded.padded_h,
            latents=setting.profile.window_latents, step=setting.step,
        )  # fmt: skip
        assert sizes == planned_sizes(selection(built), setting.profile, way.source, way.target)
        stages.close()


@pytest.mark.parametrize("pixel", [YUV8, YUV10], ids=["8", "10"])
def test_memory_of_the_pixels_stages_is_as_planned(pixel: PixelFormat) -> None:
    """Of 360p made 720p; beside the pictures, a resize's tables are little."""
    sizes = canvas(640, 360, 720)
    came = Picture(width=640, height=360, pixel=pixel)
    goes = Picture(width=1280, height=720, pixel=output_pixel(pixel, 1280, 720, image=False))
    way = PixelWay(source=came, target=goes, canvas=sizes, correction="wavelet")
    stages = [x.session._stage for x in (*open_way(way, "cpu"), open_way_in(way, "cpu"))]
    held = sum(_storages(x for stage in stages for x in _tensors(stage)).values())
    built = Canvas(width=sizes.padded_w, height=sizes.padded_h, latents=6, step=1)
    profile = TritonSetting(folder=Path()).profile
    planned = planned_sizes(selection(built), profile, came, goes).device_places()
    assert 0.98 < held / sum(planned.values()) < 1.02


def test_a_plan_has_the_latents_of_the_engines(tmp_path: Path) -> None:
    """nano's are wider than the published VAE's."""
    built = Canvas(width=64, height=32, latents=6, step=1)
    spec = make_spec(
        backend="triton",
        stage="generator",
        shapes={"latent": (1, 48, 6, 4, 8)},
    )
    about = About(source="nano", profile="360p", canvas=built)
    engine = Engine(folder=tmp_path, spec=spec, about=about, files={})
    setting = TritonSetting(folder=tmp_path)
    ends = setting.way.source, setting.way.target
    found = replace(selection(built), engines={"generator": engine})
    assert planned_sizes(found, setting.profile, *ends).latent == (1, 48, 1, 4, 8)
    assert planned_sizes(selection(built), setting.profile, *ends).latent == (1, 16, 1, 4, 8)


def selection(canvas: Canvas) -> Selection:
    """Of engines that are still to be built."""
    networks = dict.fromkeys(("encoder", "generator", "decoder"), "triton")
    found = Selection(
        canvas=canvas, how="build", backends=networks, engines={}, precision="bf16", notes=()
    )
    assert on_one_gpu(found)
    return found


RUNS = Path(__file__).with_name("run_triton_loop.py")


@pytest.mark.slow
def test_real_stages_give_the_host_s_frames_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=3)


@pytest.mark.gpu
def test_real_stages_give_the_host_s_frames_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=9)
