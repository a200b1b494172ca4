"""Calibration and gate from a clip to the verdict: nano on a small clip."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from vr_trt.bench import fp8_gate
from vr_trt.bench.clip_windows import ClipWindow, clip_windows
from vr_trt.bench.demo_clip import make
from vr_trt.bench.demo_scene import Scene
from vr_trt.bench.fp8_gate import (
    EXACT,
    Calibrated,
    CalibrationRequest,
    _db,
    calibrate_and_judge,
    judge,
)
from vr_trt.cli import exit_code
from vr_trt.engines.gate import Gate, Score, Window, refusal
from vr_trt.engines.profiles import Profile
from vr_trt.errors import UsageError
from vr_trt.export.calibration_table import CalibrationTable, gate_path
from vr_trt.export.export_model import ExportPlan, export_model
from vr_trt.export.models import ModelFiles, find_model_files
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.export.weights_hashes import hash_file
from vr_trt.runtime.model import Model, find_model

SMALL = Profile(
    name="small", short_side=64, window=9, overlap=1, latents_per_step=1, cut=False, precision="fp8"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "scene.mp4"
    make(path, Scene(width=128, height=128, frames=22))
    return path


def test_windows_follow_each_other(clip: Path) -> None:
    model = Model(find_model("nano"))
    windows = clip_windows(clip, model, 64, 3, 5)  # 22 frames are 6 latents, one frame is left over
    assert [(w.clip, w.first) for w in windows] == [("scene.mp4", 0), ("scene.mp4", 3)]
    assert [w.latents.shape for w in windows] == [(1, 48, 3, 8, 8)] * 2
    one = clip_windows(clip, model, 64, 6, 1)[0]
    assert np.array_equal(np.concatenate([w.latents for w in windows], 2), one.latents)
    with pytest.raises(UsageError, match=r"scene\.mp4 is shorter than a window of 25 frames"):
        clip_windows(clip, model, 64, 7, 1)


def test_decibels() -> None:
    assert _db(4.0, 0.04) == 20 and _db(1.0, 0.0) == EXACT
    assert np.isnan(_db(1.0, float("nan")))


@dataclass(frozen=True, slots=True)
class Nano:
    """nano in fp16, and a window of the clip."""

    files: ModelFiles
    wide: Path
    window: ClipWindow


@pytest.fixture(scope="module")
def nano(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Nano:
    files, folder = find_model_files("nano"), tmp_path_factory.mktemp("nano") / "wide"
    export_model(ExportPlan(model=files, precision="fp16"), folder)
    return Nano(files, folder, clip_windows(clip, Model(folder), 64, 3, 1)[0])


@pytest.mark.slow
def test_a_calibration_of_nano_passes_and_a_bad_one_does_not(
    clip: Path, nano: Nano, tmp_path: Path
) -> None:
    path = tmp_path / "nano.fp8.json"
    request = CalibrationRequest(
        files=nano.files, profile=SMALL, clips=[clip], table=path, wide=nano.wide, study=True
    )
    made = calibrate_and_judge(request)
    table = CalibrationTable.read(path)
    assert made.table == path and (table.clips, table.windows) == (("scene.mp4",), 1)
    assert table.weights == hash_file(nano.files.generator_file)
    kept = json.loads(gate_path(path).read_text())
    assert Gate.from_json(kept) == made.gate and made.gate.calibration == hash_file(path)
    assert [(w.clip, w.first_latent) for w in made.gate.windows] == [("scene.mp4", 3)]
    assert made.gate.passed and refusal(kept, "nano") == ""
    methods = made.study["latents_db_by_method"]
    assert methods["amax"] >= methods["percentile"]  # rare values count
    assert min(made.study["latents_db_of_one_linear"].values()) >= methods["amax"]
    bad = replace(table, amax={name: amax / 64 for name, amax in table.amax.items()})
    bad.write(tmp_path / "bad.fp8.json")
    narrow = quantise_folder(nano.wide, tmp_path / "bad", tmp_path / "bad.fp8.json").parent
    verdict = judge(Model(nano.wide), narrow, [nano.window])
    # nano's blocks change little: bad scales cost much and yet need not fail.
    assert verdict.frames.fp8 < made.gate.frames.fp8 - 6


@pytest.mark.parametrize(("fp8", "code"), [(50.0, 0), (40.0, 3)])
def test_the_command_says_whether_fp8_is_offered(
    fp8: float, code: int, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    score = Score(fp8=fp8, other_seed=41.0)
    window = Window(clip=clip.name, first_latent=3, generator=score, frames=score)
    gate = Gate(model="nano", calibration="ab" * 32, recipe=1, windows=(window,))

    def calibrated(request: CalibrationRequest, said: object) -> Calibrated:
        assert (request.clips, request.method, request.windows) == ([clip], "mse", 2)
        assert request.path == tmp_path / "t.json" and request.files.name == "nano"
        return Calibrated(table=request.path, gate=gate, study={})

    monkeypatch.setattr(fp8_gate, "calibrate_and_judge", calibrated)
    options = ["--out", str(tmp_path / "t.json"), "--method", "mse", "--windows", "2"]
    assert exit_code(["calibrate", str(clip), *options]) == code
    shown = capfd.readouterr()
    assert shown.out.strip() == str(tmp_path / "t.json")
    assert ("fp8 of nano is not offered, gate failed" in shown.err) == bool(code)


def test_one_window_is_not_enough(clip: Path, tmp_path: Path) -> None:
    request = CalibrationRequest(
        files=find_model_files("nano"),
        profile=replace(SMALL, window=21),  # the clip's 22 frames
        clips=[clip],
        table=tmp_path / "t.json",
        wide=find_model("nano"),
    )
    with pytest.raises(UsageError, match="one window to calibrate on and none to judge"):
        calibrate_and_judge(request)
    assert not list(tmp_path.iterdir())
