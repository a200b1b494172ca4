"""The E4M3 pass: what the graph becomes, what stays wide, and the same numbers as PyTorch."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from tests.networks import normal
from tests.tiny_model import TEXT, TINY_7B, Exported, TinyModel, make_tiny_model
from torch import Tensor

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.calibrate import Sample, amax_of, generate, observe
from vr_trt.export.calibration_table import CalibrationTable, table_path
from vr_trt.export.config import GeneratorConfig, generator_3b_style
from vr_trt.export.export_model import NETWORKS, ExportPlan, export_model
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.fp8 import quantise_weight, scale_exponent
from vr_trt.export.fp8_network import quantise_network, quantised_linears
from vr_trt.export.quantise import quantise
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.export.stages import StageShape
from vr_trt.export.weights_hashes import hash_file

SMALL = generator_3b_style(width=16, heads=2, head_width=8, layers=3, text_width=6, shared_from=1)
SHAPE = StageShape(height=48, width=32, latents=3)
WIDE = "blocks.1.video.out"  # is left so, for the tests
GEMMS = 3 * 4 + 4 + 4 + 1  # video; text of block 0, of 1 through shared weights, keys of the last


@dataclass(frozen=True, slots=True)
class Case:
    """A small generator, its calibration, its graphs in fp32, and those quantised."""

    model: TinyModel
    folded: FoldedGenerator
    table: CalibrationTable
    fp8: Exported
    wide: Exported

    @property
    def table_path(self) -> Path:
        return table_path(self.model.generator_file)


def calibrated(folder: Path, config: GeneratorConfig) -> tuple[TinyModel, CalibrationTable]:
    """A small model with its table beside the weights."""
    model = make_tiny_model(folder, config)
    folded = fold_generator(config, model.load_generator(), TEXT)
    noise, latent = normal(1, 16, 3, 6, 4), normal(1, 16, 3, 6, 4, seed=1)
    table = CalibrationTable(
        model="tiny",
        weights=hash_file(model.generator_file),
        method="amax",
        clips=("clip.mp4",),
        windows=1,
        amax=amax_of(observe(folded, [Sample(latent, noise, noise)]), "amax"),
        wide=(WIDE,),
    )
    table.write(table_path(model.generator_file))
    return model, table


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("fp8")
    model, table = calibrated(folder, SMALL)
    plan = ExportPlan(model=model, shape=SHAPE, networks=["generator"], precision="fp32")
    export_model(plan, folder / "wide")
    quantise_folder(folder / "wide", folder / "fp8", table_path(model.generator_file))
    folded = fold_generator(SMALL, model.load_generator(), TEXT)
    return Case(model, folded, table, Exported(folder / "fp8"), Exported(folder / "wide"))


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def test_every_block_linear_is_a_product_in_e4m3(case: Case) -> None:
    model = case.fp8.model("generator")
    onnx.checker.check_model(case.fp8.folder / "generator.onnx", full_check=True)
    made, stored = makers(model), weights(model)
    products = [node for node in model.graph.node if node.op_type == "Gemm"]
    quantised = [n for n in products if made.get(n.input[1], n).op_type == "DequantizeLinear"]
    assert len(quantised) == GEMMS - 2
    for node in quantised:
        assert len(node.input) == 2  # the bias comes after the factors
        x, weight = (made[name] for name in node.input)
        assert x.op_type == weight.op_type == "DequantizeLinear"
        narrow = made[x.input[0]]
        assert narrow.op_type == "QuantizeLinear" and narrow.input[1] == x.input[1]
        for scale in (stored[x.input[1]], stored[weight.input[1]]):  # of the whole: TensorRT's way
            assert not scale.dims and scale.data_type == onnx.TensorProto.FLOAT
        assert stored[weight.input[0]].data_type == onnx.TensorProto.FLOAT8E4M3FN
    after = Counter(
        n.op_type for n in model.graph.node if "/factors/" in n.name or "/bias/" in n.name
    )
    assert after == {"Mul": GEMMS - 2, "Add": GEMMS - 2}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_what_stays_wide(case: Case) -> None:
    model = case.fp8.model("generator")
    made, stored = makers(model), weights(model)
    wide = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "Gemm" and node.input[1] not in made
    }
    assert wide == {"folded.patch_in.weight", "folded.patch_out.weight", f"folded.{WIDE}.weight"}
    assert stored["folded.text"].data_type == onnx.TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type == "Attention":
            assert all(made[name].op_type != "DequantizeLinear" for name in node.input)
    assert not [name for name in stored if name.endswith(".mlp_in.weight")]  # no second copy


def test_weights_are_stored_in_one_byte_and_shared(case: Case) -> None:
    model = case.fp8.model("generator")
    stored = weights(model)
    narrow = [n for n in stored if stored[n].data_type == onnx.TensorProto.FLOAT8E4M3FN]
    assert len(narrow) == len(quantised_linears(case.folded, case.table))
    whole = weights(onnx.load(case.fp8.folder / "generator.onnx"))
    for name in narrow:
        layer = name.removesuffix(".weight.e4m3")
        linear = case.folded.get_submodule(layer.removeprefix("folded."))
        assert isinstance(linear, torch.nn.Linear)
        wanted = quantise_weight(linear.weight)
        values = numpy_helper.to_array(whole[name]).view(ml_dtypes.float8_e4m3fn)
        assert np.array_equal(values.astype(np.float32), wanted.values.float().numpy())
        factors = numpy_helper.to_array(whole[f"{layer}.weight.factors"])
        assert np.array_equal(factors, wanted.factors.numpy())
    shared = [n.input[1] for n in model.graph.node if n.name.startswith("folded/blocks/1/video/qkv")
              and n.op_type == "Gemm"]  # fmt: skip
    assert len(shared) == 2 and len(set(shared)) == 1
    image = {t.name: t.external_data for t in case.fp8.model("generator_image").graph.initializer}
    external = [name for name in narrow if stored[name].external_data]
    assert external and all(list(image[n]) == list(stored[n].external_data) for n in external)


def same(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    error = (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < tolerance, float(error)


def test_onnx_runtime_gives_what_pytorch_gives(case: Case) -> None:
    """In fp32, where nothing but E4M3 rounds."""
    network = quantise_network(case.folded, case.table)
    noise, latent = normal(1, 16, 3, 6, 4, seed=2), normal(1, 16, 3, 6, 4, seed=3)
    wanted = generate(network, noise, latent) - noise
    same(case.fp8.generate(noise, latent) - noise, wanted, 2e-3)  # edges fall to either side
    with pytest.raises(AssertionError):  # and fp8 is another network than the wide one
        same(generate(case.folded, noise, latent) - noise, wanted, 1e-2)
    noise, latent = noise[:, :, :1], latent[:, :, :1]
    image = case.fp8.generate(noise, latent, stage="generator_image")
    same(image - noise, generate(network, noise, latent) - noise, 2e-3)


def test_the_7b_kind_of_any_size_is_quantised_too(tmp_path: Path) -> None:
    config = replace(TINY_7B, head_width=8)
    model, table = calibrated(tmp_path, config)
    table = replace(table, wide=())
    table.write(table_path(model.generator_file))
    export_model(ExportPlan(model=model, networks=["generator"]), tmp_path / "wide")
    quantise_folder(tmp_path / "wide", tmp_path / "fp8", table_path(model.generator_file))
    folded = fold_generator(config, model.load_generator(), TEXT)
    noise, latent = normal(1, 16, 3, 6, 10, seed=2), normal(1, 16, 3, 6, 10, seed=3)
    wanted = generate(quantise_network(folded, table), noise, latent)
    found = Exported(tmp_path / "fp8").generate(noise, latent, tables=config)
    same(found - noise, wanted - noise, 2e-3)


@pytest.fixture(scope="module")
def exported_fp8(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """By the exporter, of any size, with fp16 beside E4M3."""
    folder = tmp_path_factory.mktemp("exported") / "fp8"
    export_model(ExportPlan(model=case.model, networks=["generator"], precision="fp8"), folder)
    return Exported(folder)


def test_fp16_is_what_stays_wide_in_an_export(case: Case, exported_fp8: Exported) -> None:
    stored = weights(exported_fp8.model("generator"))
    kinds = {tensor.data_type for name, tensor in stored.items() if name.startswith("folded.")}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT8E4M3FN}
    noise, latent = normal(1, 16, 3, 6, 4, seed=2), normal(1, 16, 3, 6, 4, seed=3)
    wanted = generate(quantise_network(case.folded, case.table), noise, latent)
    found = exported_fp8.generate(noise, latent, tables=SMALL)
    same(found - noise, wanted - noise, 5e-2)  # fp16 moves values over E4M3's edges


def test_the_folder_pass_is_the_exporter_s(
    case: Case, exported_fp8: Exported, tmp_path: Path
) -> None:
    half, out = tmp_path / "half", tmp_path / "out"
    export_model(ExportPlan(model=case.model, networks=["generator"], precision="fp16"), half)
    manifest = json.loads(quantise_folder(half, out, case.table_path).read_text())
    wanted = json.loads((exported_fp8.folder / "manifest.json").read_text())
    assert {**manifest, "sha256": 0} == {**wanted, "sha256": 0}
    assert (out / "generator.bin").read_bytes() == (
        exported_fp8.folder / "generator.bin"
    ).read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        quantise_folder(half, out, case.table_path)
    with pytest.raises(ModelError, match="holds no wide generator"):
        quantise_folder(out, tmp_path / "again", case.table_path)
    assert not (tmp_path / "again").exists()


def test_the_manifest_names_the_calibration(case: Case) -> None:
    manifest = json.loads((case.fp8.folder / "manifest.json").read_text())
    table = table_path(case.model.generator_file)
    assert manifest["precision"] == "fp8"
    assert manifest["fp8"] == {
        "calibration": hash_file(table), "method": "amax", "wide": [WIDE], "gate": None
    }  # fmt: skip
    assert "fp8" not in json.loads((case.wide.folder / "manifest.json").read_text())


def test_only_the_generator_is_in_fp8(case: Case) -> None:
    plan = ExportPlan(model=case.model, precision="fp8")
    assert [plan.precision_of(n) for n in NETWORKS] == ["fp16", "fp8", "fp16"]


@pytest.mark.slow
def test_the_vae_beside_it_is_in_fp16(tmp_path: Path) -> None:
    model, _ = calibrated(tmp_path, SMALL)
    plan = ExportPlan(model=model, shape=SHAPE, networks=["decoder"], precision="fp8")
    export_model(plan, tmp_path / "fp8")
    export_model(replace(plan, precision="fp16"), tmp_path / "half")
    for name in ("decode_step.onnx", "decoder.bin"):  # so that engines of it are the same ones
        assert (tmp_path / "fp8" / name).read_bytes() == (tmp_path / "half" / name).read_bytes()


def test_without_a_table_nothing_is_written(tmp_path: Path) -> None:
    model, table = calibrated(tmp_path, SMALL)
    path = table_path(model.generator_file)
    plan = ExportPlan(model=model, shape=SHAPE, precision="fp8")
    replace(table, weights="0" * 64).write(path)
    with pytest.raises(ModelError, match=r"generator\.fp8\.json calibrates other weights of tiny"):
        export_model(plan, tmp_path / "out")
    path.unlink()
    with pytest.raises(ModelError, match="no calibration table"):
        export_model(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_input_that_was_not_calibrated_is_named(case: Case) -> None:
    model = ir.load(case.wide.folder / "generator.onnx")
    amax = {n: a for n, a in case.table.amax.items() if n != "blocks.1.text.mlp_in"}
    with pytest.raises(ModelError, match=r"calibration of tiny has no blocks\.1\.text\.mlp_in"):
        quantise(model, replace(case.table, amax=amax))


def test_a_wide_linear_that_is_not_there_is_named(case: Case) -> None:
    model = ir.load(case.wide.folder / "generator.onnx")
    with pytest.raises(ModelError, match=r"names blocks\.9\.video\.qkv, which generator lacks"):
        quantise(model, replace(case.table, wide=(WIDE, "blocks.9.video.qkv")))


def test_another_graph_is_refused(case: Case) -> None:
    model = ir.load(case.wide.folder / "generator.onnx")
    del model.graph.initializers["folded.text"]
    with pytest.raises(ModelError, match="is no generator's graph"):
        quantise(model, case.table)


def test_video_and_text_of_one_length_are_refused(case: Case) -> None:
    model = ir.load(case.wide.folder / "generator_image.onnx")  # 6 tokens of video
    text = model.graph.initializers["folded.text"]
    text.shape = ir.Shape([6, 16])
    with pytest.raises(ModelError, match="generator_image has 6 tokens of video, as many as"):
        quantise(model, case.table)


def test_scales_follow_the_table(case: Case) -> None:
    model = case.fp8.model("generator")
    made = {node.name: node for node in model.graph.node}
    for branch, suffix in (("text", ""), ("video", "_1")):  # block 1 takes the text first
        node = made[f"folded/blocks/1/video/qkv{suffix}/QuantizeLinear"]
        exponent = scale_exponent(case.table.amax[f"blocks.1.{branch}.qkv"])
        assert node.input[1] == f"scale.2^{exponent}"
