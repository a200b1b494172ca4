"""Runs on engines of the cache, on the model's own graphs, and on a larger canvas by padding."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine_graphs import make_spec
from tests.fake_model import make_fake_model, write_manifest
from tests.media import make_video

from vr_trt import Restorer
from vr_trt.cli import exit_code
from vr_trt.engines.builder import PLAN
from vr_trt.engines.cache import About, Canvas, Engine, EngineCache, seal
from vr_trt.engines.selection import Machine, needed_stages
from vr_trt.errors import ModelError, UsageError
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.model import Model
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import DecodeStream, EncodeStream

EXACT = Canvas(width=480, height=368, latents=6, step=1)  # 64x48 at 360p, padded to 16
LARGE = Canvas(width=640, height=368, latents=6, step=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in.mp4", frames=12, size=(64, 48))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_fake_model(tmp_path / "model")


def add_engines(folder: Path, canvas: Canvas, cut: bool = False, **changes: Any) -> list[Engine]:
    """Engines for the CPU of every stage of the fake model, as engines of the 3B."""
    fields = {"backend": "onnxruntime", "targets": (), "precision": "fp32", **changes}
    store, made = EngineCache().store, []
    for stage in needed_stages(cut=cut):
        spec = make_spec(
            model="seedvr2-3b",
            stage=stage,
            onnx=f"{stage} {canvas}",
            **fields,
        )
        with store.lock(spec.folder_name), store.publishing(spec.folder_name) as place:
            name = "generator" if stage.startswith("generator") else stage
            shutil.copyfile(folder / f"{name}.onnx", place / PLAN)
            about = About(
                source="seedvr2-3b", profile="360p", canvas=canvas, cut=cut, seconds={"all": 90.0}
            )
            seal(place, spec, about)
        made.append(Engine.read(store.path(spec.folder_name)))
    return made


def stepped(model: str, frames: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The restored frames, through no encoder."""
    with Restorer(model=model, profile="360p", color="none") as restorer:
        return np.stack([*restorer.step(frames), *restorer.flush()]).astype(np.int16)


NOISE = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)


@pytest.mark.parametrize("cut", [False, True])
def test_exact_engines_give_what_the_graphs_give(tmp_path: Path, cut: bool) -> None:
    folder = make_fake_model(tmp_path / "model", cut=cut)
    add_engines(folder, EXACT, cut)
    assert np.array_equal(stepped(str(folder), NOISE), stepped("seedvr2-3b", NOISE))


@pytest.mark.parametrize("engines_of", ["encode", "decode", "generator"])
def test_networks_without_an_engine_run_on_the_models_own_graphs(
    tmp_path: Path, engines_of: str
) -> None:
    """Engines are of a whole VAE, and the model's own graphs of one that is cut."""
    whole = make_fake_model(tmp_path / "whole")
    own = Model(make_fake_model(tmp_path / "own", cut=True))
    made = {e.spec.stage: e for e in add_engines(whole, EXACT)}
    some = {stage: engine for stage, engine in made.items() if stage.startswith(engines_of)}
    mixed = Model.of_engines(some, own=own)
    assert set(some) < set(mixed.manifest.stages)
    assert ("decode_coarse_step" in mixed.manifest.stages) == (engines_of != "decode")
    frames = np.random.default_rng(1).standard_normal((1, 3, 9, 368, 480)).astype(np.float32)
    outputs = []
    for model in (mixed, own):
        states = StatePool()
        encode, decode = EncodeStream(model, states), DecodeStream(model, states)
        latents = [encode.push(frames[:, :, :5]), encode.push(frames[:, :, 5:])]
        restored = GeneratorStage(model, 0).restore(0, np.concatenate(latents, 2))
        outputs.append([decode.push(restored[:, :, :2]), decode.push(restored[:, :, 2:])])
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # means are summed in another order


def test_a_run_says_what_it_runs_on(film: Path, folder: Path, tmp_path: Path) -> None:
    add_engines(folder, EXACT)
    reports = []
    for name, model in (("a", str(folder)), ("b", "seedvr2-3b")):
        with Restorer(model=model, profile="360p") as restorer:
            reports.append(restorer.restore(film, tmp_path / f"{name}.mp4"))
    own, engines = reports
    assert own.engines == "onnxruntime fp32 at 480x368: the model's own graphs take any size"
    assert engines.engines == "onnxruntime fp32 at 480x368: engines of exactly 480x368"
    assert engines.warnings == ("engines of exactly 480x368", *own.warnings)
    assert engines.model == "seedvr2-3b" and engines.frames == 12


def test_padding_to_a_larger_canvas_is_cut_off_again(folder: Path) -> None:
    add_engines(folder, LARGE)
    padded, exact = (stepped(model, NOISE) for model in ("seedvr2-3b", str(folder)))
    assert padded.shape == exact.shape == (12, 360, 480, 3)
    # The fake networks look at 8 x 8 pixels only, so no padding reaches the picture.
    assert np.array_equal(padded, exact)


def test_a_run_on_a_larger_canvas_says_so(film: Path, folder: Path, tmp_path: Path) -> None:
    add_engines(folder, LARGE)
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        report = restorer.restore(film, tmp_path / "padded.mp4")
    assert report.warnings[0] == "480x368 padded to the engines of 640x368, 33% more pixels"
    assert (report.width, report.height) == (480, 360)


def test_graphs_of_one_size_are_padded_to(film: Path, folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, shape={"width": 640, "height": 368, "latents": 6, "step": 1})
    with Restorer(model=str(folder), profile="360p") as restorer:
        plan = restorer.plan(film)
        report = restorer.restore(film, tmp_path / "out.mp4")
    assert (plan.canvas.out_w, plan.canvas.padded_w) == (480, 640) and report.width == 480
    line = "480x368 padded to the model's graphs of 640x368, 33% more pixels"
    assert report.warnings[0] == line


def test_graphs_that_are_too_small_are_refused(film: Path, folder: Path) -> None:
    write_manifest(folder, shape={"width": 320, "height": 368, "latents": 6, "step": 1})
    with (
        Restorer(model=str(folder), profile="360p") as restorer,
        pytest.raises(ModelError, match="320x368, 6 latents, and no onnxruntime engines"),
    ):
        restorer.restore(film)


def test_graphs_in_fp8_without_a_verdict_are_refused(folder: Path) -> None:
    write_manifest(folder, precision="fp8", fp8={"gate": None})
    with pytest.raises(ModelError, match="has not passed its gate, which was never measured"):
        Restorer(model=str(folder), profile="360p")


def test_what_a_quick_backend_can_build_is_built(
    film: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.engines import build

    for engine in add_engines(folder, LARGE):  # 14 stages of 90 s would not do
        content = json.loads((engine.folder / "manifest.json").read_text())
        content["about"]["seconds"] = {"all": 1.0}
        (engine.folder / "manifest.json").write_text(json.dumps(content))
    asked: list[build.BuildRequest] = []

    def build_engines(request: build.BuildRequest) -> list[build.Outcome]:
        asked.append(request)
        made = add_engines(folder, request.canvas)
        return [build.Outcome(stage=e.spec.stage, engine=e, action="built") for e in made]

    monkeypatch.setattr(build, "build_engines", build_engines)
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        assert restorer.plan(film).canvas.padded_w == 480 and not asked
        report = restorer.restore(film, tmp_path / "out.mp4")
    assert [(r.canvas, r.backend, r.precision) for r in asked] == [(EXACT, "onnxruntime", "fp32")]
    assert "onnxruntime builds them now" in report.engines and report.frames == 12


def test_a_damaged_engine_is_refused_by_name(film: Path, folder: Path) -> None:
    engine = add_engines(folder, EXACT)[0]
    engine.plan.write_bytes(b"?")
    with (
        Restorer(model="seedvr2-3b", profile="360p") as restorer,
        pytest.raises(ModelError, match=f"{engine.plan} is damaged or foreign"),
    ):
        restorer.restore(film)
    assert not film.with_name("in.restored.mp4").exists()


def test_frames_one_by_one_run_on_engines_too(folder: Path) -> None:
    add_engines(folder, LARGE)
    frame = np.full((1, 48, 64, 3), 128, np.uint8)
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        done = [picture for _ in range(6) for picture in restorer.step(frame)]
        done += restorer.flush()
    assert [picture.shape for picture in done] == [(360, 480, 3)] * 6


def test_an_unreadable_cache_does_not_matter_to_a_model_with_graphs(
    film: Path, folder: Path, cache: Path, tmp_path: Path
) -> None:
    cache.write_text("no folder")
    with Restorer(model=str(folder), profile="360p") as restorer:
        assert restorer.restore(film, tmp_path / "out.mp4").frames == 12


@pytest.mark.parametrize(
    ("choice", "kind", "says"),
    [
        ({"backend": "quantum"}, UsageError, "choose auto or one of tensorrt-rtx"),
        ({"precision": "int3"}, UsageError, "fp32, fp16, bf16, fp8"),
        ({"model": "seedvr2-7b"}, ModelError, "vr-trt weights pull seedvr2-7b"),
    ],
)
def test_wrong_choices(choice: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Restorer(**choice)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--backend", "tensorrt-rtx"], 3, "needs an NVIDIA GPU and there is none here"),
        (["--backend", "quantum"], 2, "unknown backend 'quantum'"),
        (["--precision", "int3"], 2, "unknown precision 'int3'"),
        (["--precision", "bf16"], 3, "no bf16 on the CPU"),
        (["--precision", "fp16"], 3, "--backend onnxruntime --precision fp16`"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_run_and_plan_refuse_in_one_line(
    film: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    options: list[str],
    code: int,
    says: str,
) -> None:
    from vr_trt.runtime import serving

    monkeypatch.setattr(serving, "present_gpu", lambda: None)
    arguments = [verb, str(film), "--model", str(folder), "--profile", "360p", *options]
    assert exit_code(arguments) == code
    shown = capfd.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and says in shown.err
    assert [path.name for path in film.parent.glob("*.mp4")] == ["in.mp4"]


def test_plan_shows_the_choice(film: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    add_engines(folder, LARGE)
    assert (
        exit_code(["plan", str(film), "--model", "seedvr2-3b", "--profile", "360p", "--json"]) == 0
    )
    shown = json.loads(capfd.readouterr().out)
    assert shown["canvas"] == "640x368" and shown["output"].startswith("480x360")
    assert shown["engines"].startswith("onnxruntime fp32 at 640x368: 480x368 padded to the engines")
    assert shown["notes"][0].endswith("33% more pixels")


@pytest.mark.parametrize(("gib", "fits"), [(24, True), (8, False)])
def test_the_cards_memory_is_planned_and_refused(
    film: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    gib: int,
    fits: bool,
) -> None:
    """An invented card; nothing runs on it here."""
    from vr_trt.runtime import serving

    backends = frozenset({"tensorrt-rtx"})
    machine = Machine(sm=89, memory=gib << 30, installed=backends, runs=backends)
    monkeypatch.setattr(serving, "this_machine", lambda: machine)
    add_engines(folder, EXACT, backend="tensorrt-rtx", targets=(89,), precision="fp16")
    arguments = [str(film), "--model", "seedvr2-3b", "--profile", "360p"]
    assert exit_code(["plan", *arguments, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["fits"] == fits and shown["card_usable_mib"] == int(gib * 1024 * 0.95)
    assert 9_000 < shown["card_mib"] < 13_000
    if not fits:
        assert exit_code(["run", *arguments]) == 4
        (line,) = capfd.readouterr().err.splitlines()
        assert "MiB are usable: --backend triton fits (" in line
