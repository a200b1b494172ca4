"""The folder of an export: manifest, shared weights, equal bytes, and errors of one line."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from tests.exported_graphs import (
    LANDSCAPE,
    PORTRAIT,
    STAGES,
)
from tests.tiny_model import (
    TEXT,
    TINY_3B,
    Exported,
    TinyModel,
)

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.export_model import ExportPlan, export_model
from vr_trt.export.stages import StageShape


def test_the_manifest_is_whole(portrait: Exported) -> None:
    manifest = json.loads((portrait.folder / "manifest.json").read_text())
    files = {path.name for path in portrait.folder.iterdir()} - {"manifest.json"}
    assert set(manifest["sha256"]) == files
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((portrait.folder / name).read_bytes()).hexdigest() == digest
    assert set(manifest["stages"]) == {*STAGES, "generator", "generator_image"}
    assert set(manifest["stages"].values()) <= files
    assert (manifest["rope"], manifest["head_width"]) == ("language", TINY_3B.head_width)
    assert (manifest["text_tokens"], manifest["latent_channels"]) == (len(TEXT), 16)
    shape = {"width": 32, "height": 48, "latents": 6, "step": 2}
    assert manifest["shape"].items() >= shape.items()
    assert (manifest["precision"], manifest["profile"]) == ("fp32", "small")


def external(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """Where each large weight lies."""
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


@pytest.mark.parametrize(("verb", "network"), [("encode", "encoder"), ("decode", "decoder")])
def test_start_and_step_share_their_weights(verb: str, network: str, portrait: Exported) -> None:
    start, step = (external(portrait.model(f"{verb}_{call}")) for call in ("start", "step"))
    # Two latents are too few for the first upsampling's later step; a step's ones are its own.
    only_later = ("network.up_blocks.0.upsamplers.0.step.weight", "ones_like")
    common = {name: at for name, at in step.items() if not name.startswith(only_later)}
    assert len(common) > 10 and {name: start.get(name) for name in common} == common
    image = external(portrait.model(f"{verb}_image"))
    size = (portrait.folder / f"{network}.bin").stat().st_size
    stored = (*start.values(), *step.values(), *image.values())
    places = {(int(p["offset"]), int(p["length"])) for p in stored}
    assert {p["location"] for p in start.values()} == {f"{network}.bin"}  # no path, no folder
    ends = sorted((offset, offset + length) for offset, length in places)
    assert all(a[1] <= b[0] for a, b in pairwise(ends))  # none overlaps
    assert ends[-1][1] == size  # and nothing else is in the file
    assert all(offset % 4096 == 0 for offset, _ in places)


def test_equal_exports_are_equal_files_and_progress_is_told(
    tiny: TinyModel, portrait: Exported, tmp_path: Path
) -> None:
    """The generator alone, as it is among all networks."""
    plan = ExportPlan(model=tiny, shape=PORTRAIT, profile="small", networks=["generator"])
    folder, said = tmp_path / "new" / "folder", list[str]()
    export_model(plan, folder, said.append)
    names = {"generator.bin", "generator.onnx", "generator_image.onnx"}
    assert {path.name for path in folder.iterdir()} == {*names, "manifest.json"}
    for name in names:
        assert (folder / name).read_bytes() == (portrait.folder / name).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["stages"]) == ["generator", "generator_image"]
    assert [line.split(":")[0] for line in said] == [
        stage for stage in manifest["stages"] for _ in ("tracing", "done")
    ]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_of_something_else_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError) as error:
        export_model(ExportPlan(model=tiny, shape=LANDSCAPE), tmp_path)
    assert "holiday.jpg" in one_line(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holiday.jpg", "manifest.json"]


def test_a_folder_that_cannot_be_written_is_one_line(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "blocked" / "encoder.bin").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "blocked"):
        with pytest.raises(UsageError) as error:
            export_model(ExportPlan(model=tiny, shape=LANDSCAPE), folder)
        assert str(folder) in one_line(error) and "--out" in one_line(error)


def test_wrong_weights_leave_an_earlier_export_alone_or_invalid(
    tiny: TinyModel, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    missing = TinyModel(
        name="tiny", generator=tiny.generator, vae=tiny.vae,
        generator_file=tmp_path / "nothing.safetensors", vae_file=tiny.vae_file,
    )  # fmt: skip
    with pytest.raises(ModelError) as error:
        export_model(ExportPlan(model=missing, shape=LANDSCAPE), folder)
    assert "nothing.safetensors" in one_line(error)
    assert (folder / "manifest.json").is_file()  # nothing was touched
    swapped = TinyModel(
        name="tiny", generator=tiny.generator, vae=tiny.vae,
        generator_file=tiny.vae_file, vae_file=tiny.generator_file,
    )  # fmt: skip
    with pytest.raises(ModelError) as error:
        export_model(ExportPlan(model=swapped, shape=LANDSCAPE), folder)
    assert "missing" in one_line(error)
    assert not (folder / "manifest.json").exists()  # half an export is none


def test_unknown_choices_are_named(tiny: TinyModel) -> None:
    with pytest.raises(UsageError, match="fp64"):
        ExportPlan(model=tiny, precision="fp64")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="upscaler"):
        ExportPlan(model=tiny, networks=["encoder", "upscaler"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 40},
        {"width": 8},
        {"height": 0},
        {"latents": 0},
        {"step": 0},
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16|at least one latent"):
        replace(StageShape(height=32, width=32, latents=1), **wrong)
