"""What TensorRT-RTX makes of our graphs: counted, so that a change that breaks a fusion fails."""

import re
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
from tests.engine_graphs import make_spec

from vr_trt.engines.build_process import build_in_process
from vr_trt.engines.builder import PLAN
from vr_trt.engines.onnx_file import read_onnx
from vr_trt.engines.plan_report import FUSED_ATTENTION, PlanReport, report_plan
from vr_trt.errors import ModelError

pytest.importorskip("tensorrt_rtx")

# Of TensorRT-RTX 1.7.1.116, for two generator blocks (plain and shifted windows, one with shared
# weights) and for one decoder step. Another version may count otherwise: look, then write it here.
COUNTED_WITH = "1.7.1.116"
GENERATOR = {
    FUSED_ATTENTION: 2,
    "norm": 12,
    "activation": 3,
    "gather": 2,
    "arithmetic": 5,
    "movement only": 1,
    "stub: matrix product": 15,
    "stub: product with epilogue": 10,
}
DECODER = {
    "softmax apart": 1,  # the one wide head of the VAE has no fused kernel
    "norm": 14,
    "activation": 13,
    "arithmetic": 4,
    "counters cleared": 14,
    "movement only": 14,
    "stub: convolution": 19,
    "stub: matrix product": 4,
}
DECODER_MOVED = 30.3e6  # bytes read and written by kernels that only move


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of a generator of two blocks, in the folder."""
    import torch

    from vr_trt.export.config import generator_3b_style
    from vr_trt.export.fold_generator import fold_generator
    from vr_trt.export.random_weights import random_tensors
    from vr_trt.export.stages import StageShape, generator_stages

    config = generator_3b_style(
        width=128, heads=2, head_width=64, layers=2, text_width=32, shared_from=1
    )
    dtype = torch.float16 if request.param == "fp16" else torch.float32
    folded = fold_generator(config, dict(random_tensors(config)), torch.randn(5, 32), dtype=dtype)
    stage = next(generator_stages(folded, StageShape(height=64, width=96, latents=3)))
    folder: Path = tmp_path_factory.mktemp(str(request.param))
    return plan_of(stage, folder)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of a decoder's step, in the folder."""
    import torch

    from vr_trt.export.config import VaeConfig
    from vr_trt.export.fold_vae import fold_decoder
    from vr_trt.export.random_weights import random_tensors
    from vr_trt.export.stages import StageShape, coder_stages
    from vr_trt.export.vae import IMAGE, VIDEO

    config = VaeConfig(channels=(32, 64, 128, 128), encoder_resnets=1, decoder_resnets=1, groups=8)
    weights = dict(random_tensors(config))
    stages = coder_stages(
        lambda: fold_decoder(config, weights, VIDEO, torch.float16),
        lambda: fold_decoder(config, weights, IMAGE, torch.float16),
        StageShape(height=64, width=96, latents=3),
    )
    step = next(stage for stage in stages if stage.name == "decode_step")
    return plan_of(step, tmp_path_factory.mktemp("decoder"))


def plan_of(stage: object, folder: Path) -> Path:
    from vr_trt.export.onnx_graph import Trace, trace
    from vr_trt.export.onnx_weights import SharedWeights

    assert isinstance(stage, Trace)
    graph = folder / f"{stage.name}.onnx"
    with SharedWeights(folder / "weights.bin") as weights:
        weights.save(trace(stage), graph)
    sizes = {name: s for name, s in read_onnx(graph).inputs.items() if s}
    spec = make_spec(stage=stage.name, shapes=sizes, targets=(89,))
    build_in_process(spec, graph, folder, lambda moment: None)
    return folder


def check_counts(report: PlanReport, recorded: dict[str, int]) -> None:
    """Attention as recorded, and nowhere more kernels or stubs; fewer are welcome."""
    if version("tensorrt-rtx") != COUNTED_WITH:
        pytest.skip(f"counted with tensorrt-rtx {COUNTED_WITH}")
    found = report.kinds
    assert found.get(FUSED_ATTENTION) == recorded.get(FUSED_ATTENTION)
    kernels = [kind for kind in found if not kind.startswith("stub")]
    assert {k: found[k] for k in kernels if found[k] > recorded.get(k, 0)} == {}
    # A product may gain an epilogue, or be called in another way: their sum stays.
    assert report.stubs <= sum(n for kind, n in recorded.items() if kind.startswith("stub"))


def test_the_generators_fusions(generator: Path) -> None:
    report = report_plan(generator)
    assert report.targets == ("sm89",)
    if generator.name.startswith("fp32"):  # no fused kernel of this width in fp32
        assert report.kinds["softmax apart"] == 2 and FUSED_ATTENTION not in report.kinds
        return
    check_counts(report, GENERATOR)
    assert report.example(FUSED_ATTENTION) == "_gemm_mha_v2"
    # Norm and modulation are one kernel, with the way into the windows; and so are the MLP's gate
    # and activation.
    norms = [n for n in report.names if n.startswith("__myl_GathCastMulMeanAddSqrtDivMulCast")]
    assert sum(report.names[name] for name in norms) == 2
    assert report.names["__myl_AddAddSiluMul"] == 3
    # A block's queries, keys and values are normalised, rotated and brought into windows in one.
    assert sum("CastMulSlicMulMulSlicMulAdd" in name for name in report.names) == 2


def test_the_decoders_fusions(decoder: Path) -> None:
    report = report_plan(decoder)
    check_counts(report, DECODER)
    # The activation, the way back from single frames, the causal pad with the carried frames, and
    # the next call's state: one kernel.
    pads = [n for n in report.names if re.search("Silu(MoveReshTran)?ConcTranSlic$", n)]
    assert sum(report.names[name] for name in pads) == 13
    assert report.names["__myl_Gnor"] == 14
    assert report.traffic["movement only"] <= DECODER_MOVED


def test_norms_are_built_with_the_graphs_epsilon(decoder: Path) -> None:
    """TensorRT-RTX 1.7.1 writes 1e-5 into the kernel whatever the graph says."""
    kernel = re.compile(rb"tile_norm\w+<[^;]*, ?([\d.e-]+)\);")
    built = {float(epsilon) for epsilon in kernel.findall((decoder / PLAN).read_bytes())}
    graph = onnx.load(decoder / "decode_step.onnx", load_external_data=False).graph
    asked = [
        attribute.f
        for node in graph.node
        if node.op_type == "GroupNormalization"
        for attribute in node.attribute
        if attribute.name == "epsilon"
    ]
    assert len(asked) == 14 and len(built) == 1
    assert asked == pytest.approx([*built] * 14, rel=1e-6)


def test_traffic_is_counted_by_kind(decoder: Path) -> None:
    report = report_plan(decoder)
    assert report.traffic.keys() == report.kinds.keys()
    assert report.traffic["counters cleared"] < 1e4
    # Every norm reads what it writes: 7 of 128 x 8 x 12 values, 2 of 128 x 2 x 16 x 24, one each of
    # 128 and 64 x 4 x 32 x 48, and of 64, 32 and 32 x 4 x 64 x 96; and it keeps some sums.
    values = 7 * 128 * 96 + 2 * 128 * 768 + (128 + 64) * 6144 + (64 + 32 + 32) * 24576
    assert 4 * values < report.traffic["norm"] < 4.2 * values


def test_a_plan_or_its_folder(decoder: Path) -> None:
    assert report_plan(decoder / PLAN) == report_plan(decoder)
    assert report_plan(decoder).as_json()["kinds"] == report_plan(decoder).kinds
    assert report_plan(decoder).as_json()["bytes"] == report_plan(decoder).traffic


def test_what_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read .*give a plan"):
        report_plan(tmp_path)
    (tmp_path / PLAN).write_bytes(b"ONNX")
    with pytest.raises(ModelError, match="no plan of tensorrt-rtx"):
        report_plan(tmp_path)
