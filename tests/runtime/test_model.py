"""A model's folder: what is accepted, what is refused and how it is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.fake_model import make_fake_model, write_manifest

from vr_trt.errors import InterruptedRun, ModelError, UsageError
from vr_trt.kernels.detail import wavelet_name
from vr_trt.runtime.model import DOWNLOADED, Model, find_model, read_manifest
from vr_trt.runtime.session import call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_fake_model(tmp_path / "fake")


def test_sessions_are_opened_once_and_can_be_dropped(folder: Path) -> None:
    model = Model(folder)
    first = model.session("encode_image")
    assert model.session("encode_image") is first
    model.drop("encode_image")
    assert model.session("encode_image") is not first


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("generator.onnx", lambda path: path.unlink(), "generator.onnx is missing"),
        ("decode_step.onnx", lambda path: path.write_bytes(b"x"), "decode_step.onnx is damaged"),
        ("manifest.json", lambda path: path.unlink(), "manifest.json is missing"),
        ("manifest.json", lambda path: path.write_text("{"), "cannot read .*manifest.json"),
        ("manifest.json", lambda path: path.write_text("[]"), "not a model's manifest"),
        ("manifest.json", lambda path: path.write_text("{}"), "not a model's manifest"),
    ],
)
def test_missing_and_damaged_files_are_named(
    folder: Path, name: str, damage: object, message: str
) -> None:
    assert callable(damage)
    damage(folder / name)
    with pytest.raises(ModelError, match=message):
        Model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": {"generator": "generator.onnx"}}, "no stage encode_image"),
        ({"sha256": {}}, "no hash of decode_image.onnx"),
        ({"sha256": "none"}, "not a model's manifest"),
        ({"detail": [1.0] * 6}, "not 1 to 5 shares from 0 to 1"),
        ({"detail": [0.5, -0.1]}, "not 1 to 5 shares from 0 to 1"),
        ({"detail": 1}, "not a model's manifest"),
    ],
)
def test_a_foreign_manifest_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    write_manifest(folder, **changes)
    with pytest.raises(ModelError, match=message):
        read_manifest(folder)


def test_a_model_makes_all_detail_unless_its_manifest_says_less(folder: Path) -> None:
    assert read_manifest(folder).detail == (1.0, 1.0, 1.0, 1.0, 1.0)
    write_manifest(folder, detail=[0.5, 0.25])
    assert wavelet_name(read_manifest(folder).detail) == "wavelet-50-25"


def test_a_file_outside_of_the_folder_is_refused(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    content["sha256"]["../secret"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="outside of the folder"):
        read_manifest(folder)


def test_a_graph_that_is_none_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "generator.onnx").write_bytes(b"not a graph at all")
    write_manifest(folder)
    with pytest.raises(ModelError, match="cannot load .*generator.onnx") as caught:
        Model(folder).session("generator")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # the library keeps quiet


def test_a_wrong_shape_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = Model(folder).session("encode_image")
    with pytest.raises(ModelError, match="cannot run .*encode_image.onnx") as caught:
        call(session, {"x": np.zeros((1, 3, 2, 16, 16), np.float32)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_input_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="no input or output 'y'"):
        Model(folder).session("encode_image").bind("y", np.zeros(1, np.float32))


def test_a_cancelled_model_runs_nothing_more(folder: Path) -> None:
    model = Model(folder)
    opened = model.session("encode_image")
    model.cancel()
    for session in (opened, model.session("decode_image")):
        name = next(iter(session.inputs))
        shape = (1, 3, 1, 16, 16) if name == "x" else (1, 16, 1, 2, 2)
        with pytest.raises(InterruptedRun):
            call(session, {name: np.zeros(shape, np.float32)})


def test_names(folder: Path) -> None:
    assert find_model(str(folder)) == folder
    assert find_model("nano").name == "nano"
    for name in DOWNLOADED:
        with pytest.raises(ModelError, match=f"vr-trt weights pull {name}.*--model nano"):
            find_model(name)
    with pytest.raises(UsageError, match="'seedvr3'.*nano, seedvr2-3b, seedvr2-7b"):
        find_model("seedvr3")
