"""Engines in fp8 and bf16: really built of small generators, marked, and refused where they cannot be."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.networks import normal
from tests.tiny_model import TEXT, TinyModel, export_generator, make_tiny_model

from vr_trt.engines import export_process
from vr_trt.engines.build import BuildRequest, build_engines
from vr_trt.engines.cache import Canvas
from vr_trt.engines.gate import Gate, Score, Window
from vr_trt.engines.plan_report import report_plan
from vr_trt.errors import ModelError
from vr_trt.export import models
from vr_trt.export.calibrate import Sample, amax_of, observe
from vr_trt.export.calibration_table import CalibrationTable, gate_path, table_path
from vr_trt.export.config import generator_3b_style
from vr_trt.export.export_model import ExportPlan
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.export.stages import StageShape
from vr_trt.export.weights_hashes import hash_file
from vr_trt.runtime.model import Model

SMALL = generator_3b_style(width=32, heads=2, head_width=16, layers=2, text_width=6, shared_from=1)
CANVAS = Canvas(width=32, height=48, latents=3, step=1)
WEIGHTS = (
    2 * 4 + 4 + 1
)  # linears of two blocks' video, of the first one's text, the last one's keys


@dataclass(frozen=True, slots=True)
class Small:
    """A small generator in one wide precision, and quantised from that."""

    model: TinyModel
    wide: Path
    fp8: Path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Small]:
    folder = tmp_path_factory.mktemp("small")
    model = make_tiny_model(folder, SMALL)
    folded = fold_generator(SMALL, model.load_generator(), TEXT)
    x = normal(1, 16, 3, 6, 4)
    CalibrationTable(
        model="tiny",
        weights=hash_file(model.generator_file),
        method="amax",
        clips=("clip.mp4",),
        windows=1,
        amax=amax_of(observe(folded, [Sample(x, x, x)]), "amax"),
    ).write(table_path(model.generator_file))

    def made(precision: str) -> Small:
        wide, fp8 = folder / precision, folder / f"{precision}-fp8"
        if not wide.exists():
            shape = StageShape(height=CANVAS.height, width=CANVAS.width, latents=CANVAS.latents)
            plan = ExportPlan(model=model, shape=shape)
            export_generator(replace(plan, precision=precision), wide)  # type: ignore[arg-type]
            quantise_folder(wide, fp8, table_path(model.generator_file))
        return Small(model, wide, fp8)

    return made


def asked(model: Path, backend: str = "tensorrt-rtx", **changes: Any) -> BuildRequest:
    request = BuildRequest(
        model=str(model), profile="360p", canvas=CANVAS, backend=backend, stages=("generator",)
    )
    return replace(request, **changes)


@pytest.mark.parametrize("wide", ["fp16", "bf16"])
def test_tensorrt_rtx_multiplies_in_e4m3(
    wide: str, small: Callable[[str], Small], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = build_engines(asked(small(wide).fp8), None, tmp_path)[0].engine
    assert engine.spec.precision == "fp8" and engine.spec.targets == (89, 120)
    plan = engine.plan.read_bytes()
    lines = [line for line in plan.split(b"\n") if b"type=fp8_e4m3 }" in line]
    weights = [line for line in lines if b"const_payload_size" in line]
    # Keys and values of the text depend on no input, and are computed when the plan is made.
    assert WEIGHTS - 6 <= len(weights) <= WEIGHTS
    # Norm, factors, bias, residual and rounding are one kernel; nothing only rounds.
    names = report_plan(engine.plan).names
    assert any("MeanAddSqrtDivMul" in name and "MulAddAdd" in name for name in names)
    assert not [name for name in names if name.endswith(("__myl_MulCast", "__myl_Cast"))]


def test_tensorrt_rtx_builds_bf16(small: Callable[[str], Small], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = build_engines(asked(small("bf16").wide), None, tmp_path)[0].engine
    plan = engine.plan.read_bytes()
    assert engine.spec.precision == "bf16" and not engine.refusal
    assert (
        b"type=bf16" in plan
        and b"type=fp8_e4m3" not in plan
        and b"accelerators={sm89 sm120 }" in plan
    )


@pytest.mark.parametrize(
    ("precision", "sm", "message"),
    [
        ("fp8", 86, r"sm_86 \(Ampere, RTX 30\) has no fp8: choose fp16, or one of sm_89"),
        ("fp8", 75, "has no fp8"),
        ("bf16", 75, "has no bf16"),
    ],
)
def test_older_chips_are_refused(
    precision: str, sm: int, message: str, small: Callable[[str], Small], tmp_path: Path
) -> None:
    folder = small("bf16").fp8 if precision == "fp8" else small("bf16").wide
    with pytest.raises(ModelError, match=message):
        build_engines(asked(folder, targets=(sm,)), None, tmp_path)
    with pytest.raises(ModelError, match=message):  # and before anything is exported
        build_engines(asked(Path("nano"), targets=(sm,), precision=precision), None, tmp_path)
    assert not list(tmp_path.iterdir())


def verdict(fp8: float) -> dict[str, Any]:
    score = Score(fp8=fp8, other_seed=41.0)
    window = Window(clip="a.mp4", first_latent=0, generator=score, frames=score)
    return Gate(model="tiny", calibration="ab" * 32, recipe=1, windows=(window,)).as_json()


def test_engines_are_marked_with_the_gate_s_verdict(
    small: Callable[[str], Small], tmp_path: Path
) -> None:
    folder = small("fp16").fp8
    manifest = json.loads((folder / "manifest.json").read_text())
    said = []
    for gate, action in ((None, "built"), (verdict(50.0), "found"), (verdict(40.0), "found")):
        manifest["fp8"]["gate"] = gate
        (folder / "manifest.json").write_text(json.dumps(manifest))
        outcome = build_engines(asked(folder, "onnxruntime"), None, tmp_path)[0]
        assert outcome.action == action and outcome.engine.about.gate == gate
        said.append(type(outcome.engine).read(outcome.engine.folder).refusal)
    assert "never measured" in said[0] and said[1] == "" and "40.0 dB" in said[2]


def test_a_verdict_needs_no_new_graphs(
    small: Callable[[str], Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that is exported for the build, from weights with a table beside them."""
    model = small("fp16").model
    monkeypatch.setattr(models, "find_model_files", lambda *given: model)
    exports = []

    def export(wanted: export_process.Export, folder: Path, watch: object) -> None:
        exports.append(wanted.precision)
        shutil.copytree(small("fp16").fp8, folder, dirs_exist_ok=True)

    monkeypatch.setattr(export_process, "export_in_process", export)
    asked_for = asked(Path("nano"), "onnxruntime", precision="fp8")
    first = build_engines(asked_for, None, tmp_path / "cache")[0]
    assert first.action == "built" and "never measured" in first.engine.refusal
    table = table_path(model.generator_file)
    gate = {**verdict(50.0), "calibration": hash_file(table)}
    gate_path(table).write_text(json.dumps(gate))
    second = build_engines(asked_for, None, tmp_path / "cache")[0]
    assert second.action == "found" and second.engine.refusal == "" and exports == ["fp8"]
    gate_path(table).unlink()


def test_bf16_is_not_for_the_cpu(small: Callable[[str], Small], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no bf16 on the CPU: choose fp32 or fp16"):
        build_engines(asked(small("bf16").wide, "onnxruntime"), None, tmp_path)


def test_a_run_refuses_graphs_that_did_not_pass(tmp_path: Path) -> None:
    stages = ("encode_image", "generator", "decode_image", "encode_start", "encode_step",
              "decode_start", "decode_step")  # fmt: skip
    manifest = {
        "model": "tiny", "version": "0", "precision": "fp8", "text_tokens": 3, "head_width": 8,
        "rope": "language", "latent_channels": 16, "stages": {s: f"{s}.onnx" for s in stages},
        "sha256": {f"{s}.onnx": "0" * 64 for s in stages},
    }  # fmt: skip
    for gate, message in (
        (None, "never measured"),
        (verdict(40.0), "gate failed"),
        (verdict(50.0), "encode_image.onnx is missing"),  # what is looked at next
    ):
        content = {**manifest, "fp8": {"gate": gate}}
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message):
            Model(tmp_path)
