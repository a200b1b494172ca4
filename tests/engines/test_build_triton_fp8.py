"""Plans of the triton backend in fp8: from a quantised graph, and refused where they cannot be."""

from pathlib import Path

import onnx
import pytest
import torch
from tests.engine_graphs import make_spec
from tests.networks import normal
from tests.tiny_model import TEXT, export_generator, make_tiny_model

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.engines import build_triton
from vr_trt.engines.build_triton import BUILDER
from vr_trt.engines.e4m3_graph import e4m3_tensors
from vr_trt.engines.spec import EngineSpec
from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_plan import read_plan
from vr_trt.engines.triton_products import E4m3Linear, check_device, quantised_state
from vr_trt.engines.triton_stages import Shared, open_stage
from vr_trt.errors import ModelError
from vr_trt.export.calibrate import Sample, amax_of, observe
from vr_trt.export.calibration_table import CalibrationTable, table_path
from vr_trt.export.config import VAE, generator_3b_style
from vr_trt.export.export_model import ExportPlan
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.export.stages import StageShape
from vr_trt.export.weights_hashes import hash_file

SMALL = generator_3b_style(width=64, heads=2, head_width=32, layers=3, text_width=6, shared_from=1)
LATENT = (1, 16, 3, 6, 4)
WIDE = "blocks.1.video.out"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A quantised graph, and the tensors that its calibration makes of the network."""
    folder = tmp_path_factory.mktemp("fp8")
    model = make_tiny_model(folder, SMALL)
    folded = fold_generator(SMALL, model.load_generator(), TEXT)
    noise, latent = normal(*LATENT), normal(*LATENT, seed=1)
    table = CalibrationTable(
        model="tiny", weights=hash_file(model.generator_file), method="amax",
        clips=("clip.mp4",), windows=1, wide=(WIDE,),
        amax=amax_of(observe(folded, [Sample(latent, noise, noise)]), "amax"),
    )  # fmt: skip
    table.write(table_path(model.generator_file))
    shape = StageShape(height=48, width=32, latents=3)
    plan = ExportPlan(model=model, shape=shape, precision="fp16")
    export_generator(plan, folder / "wide")
    quantise_folder(folder / "wide", folder / "fp8", table_path(model.generator_file))
    half = fold_generator(SMALL, model.load_generator(), TEXT, dtype=torch.float16)
    return folder / "fp8" / "generator.onnx", quantised_state(half, table)


def spec_of(**changes: object) -> EngineSpec:
    fields = {
        "backend": "triton",
        "targets": (89,),
        "precision": "fp8",
        "shapes": {name: LATENT for name in ("noise", "latent")},
    }
    return make_spec(**fields | changes)


def test_a_plan_holds_what_the_calibration_makes_of_the_network(
    made: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, wanted = made
    monkeypatch.setattr(build_triton, "_configs_of", lambda model: (SMALL, VAE))
    report = BUILDER.build(spec_of(), graph, tmp_path / "plan", print)
    assert report.facts["sm_89"]["arch"] == "sm_89"
    state = read_plan(tmp_path / "plan").state
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert state[name].dtype == tensor.dtype, name
        torch.testing.assert_close(
            state[name].float(), tensor.float(), rtol=0, atol=0, equal_nan=True, msg=name
        )
    stage = open_stage(tmp_path / "plan", Shared.of([tmp_path / "plan"], torch.device("cpu")))
    assert isinstance(stage, TritonGenerator)
    linears = [m for m in stage._folded.modules() if isinstance(m, E4m3Linear)]
    assert len(linears) == 3 * 4 + 4 + 1 - 1
    assert {tuple(x.shape) for x in stage.inputs.values()} == {LATENT}


def test_a_graph_that_is_not_quantised_is_refused(
    made: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_triton, "_configs_of", lambda model: (SMALL, VAE))
    wide = made[0].parents[1] / "wide" / "generator.onnx"
    with pytest.raises(ModelError, match="no linears in fp8: export it with --precision fp8"):
        BUILDER.build(spec_of(), wide, tmp_path / "plan", print)


def test_video_and_text_must_be_told_apart(
    made: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    model = onnx.load(made[0], load_external_data=False)
    for value in model.graph.value_info:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].Clear()
    with pytest.raises(ModelError, match="does not say how many tokens blocks.0"):
        e4m3_tensors(model, len(TEXT), lambda tensor: torch.ones(1))


@pytest.mark.parametrize("chip", [80, 86])
def test_chips_without_e4m3_are_refused(chip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=f"sm_{chip} .* has no fp8"):
        BUILDER.check("fp8", chip)
    monkeypatch.setattr("vr_trt.engines.triton_products.capability_of", lambda device: chip)
    with pytest.raises(ModelError, match=f"sm_{chip} has no fp8: build the generator in fp16"):
        check_device({"blocks.0.video.qkv.input_scales": torch.ones(2)}, torch.device("cuda"))
    check_device({"blocks.0.video.qkv.weight": torch.ones(2)}, torch.device("cuda"))
