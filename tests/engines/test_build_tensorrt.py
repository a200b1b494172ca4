"""The TensorRT 11 builder against a stand-in with the real signatures, and against TensorRT-RTX."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.library_stand_in import StandIn

from vr_trt.engines import build_tensorrt, tensorrt_network, tensorrt_plan
from vr_trt.engines.build_tensorrt import BUILDER
from vr_trt.engines.builder import find_builder
from vr_trt.engines.local_gpu import Gpu
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError

BINDINGS = Path(__file__).with_name("tensorrt_11_bindings.json")
H100 = Gpu(name="NVIDIA H100", sm=90, multiprocessors=132, memory=80 << 30, driver=13000)


class Plan(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Input:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: H100)
    monkeypatch.setattr(build_tensorrt.TensorRtBuilder, "version", lambda self: "11.4.0.106")
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    return H100


@pytest.fixture
def library(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A TensorRT that reads every graph as x [2, -1] -> one plan."""
    trt = StandIn("tensorrt", json.loads(BINDINGS.read_text(encoding="utf-8"))["tensorrt"])
    tensor = Input("x", (2, -1))
    trt.answers |= {
        "INetworkDefinition.num_inputs": lambda: 1,
        "INetworkDefinition.get_input": lambda index: tensor,
        "Builder.build_serialized_network": lambda **_: Plan(b"plan"),
        "ITimingCache.serialize": lambda: b"timings",
        "EngineInspector.get_engine_information": lambda format: "{}",
        "ICudaEngine.device_memory_size_v2": lambda: 4096,
    }
    trt.__dict__["tensor"] = tensor
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt


def spec(options: Mapping[str, str] | None = None, **changes: Any) -> EngineSpec:
    plain = EngineSpec(
        model="nano",
        weights={},
        stage="generator",
        onnx="0" * 64,
        shapes={"x": (2, 8)},
        precision="bf16",
        backend="tensorrt",
        backend_version="11.4.0.106",
        targets=(90,),
        flags=BUILDER.flags(options or {}),
        recipe=BUILDER.recipe,
    )
    return replace(plain, **changes)


def build(folder: Path, wanted: EngineSpec) -> tuple[Any, list[str]]:
    said: list[str] = []
    report = BUILDER.build(wanted, folder / "graph.onnx", folder / "plan", said.append)
    return report, said


def test_it_is_the_builder_called_tensorrt() -> None:
    assert find_builder("tensorrt") is BUILDER


def test_a_build_writes_the_plan_and_says_what_it_needs(library: StandIn, tmp_path: Path) -> None:
    report, said = build(tmp_path, spec())
    assert (tmp_path / "plan").read_bytes() == b"plan"
    assert (tmp_path / tensorrt_plan.LAYERS).read_text() == "{}"
    assert report.facts["plan_bytes"] == 4 and report.facts["device_bytes"] == 4096
    assert set(report.seconds) == {"parse", "build"} and said[0] == "parsing"
    assert library.called("OnnxParser.parse_from_file") == [{"model": str(tmp_path / "graph.onnx")}]


def test_defaults_are_one_chip_no_tf32_and_the_librarys_level(
    library: StandIn, tmp_path: Path
) -> None:
    build(tmp_path, spec())
    flags = [call["flag"].name for call in library.called("IBuilderConfig.set_flag")]
    assert flags == ["EDITABLE_TIMING_CACHE"]
    assert [call["flag"].name for call in library.called("IBuilderConfig.clear_flag")] == ["TF32"]
    settings = library.settings
    assert settings["IBuilderConfig.builder_optimization_level"] == 3
    assert settings["IBuilderConfig.hardware_compatibility_level"].name == "NONE"
    assert settings["IBuilderConfig.tiling_optimization_level"].name == "NONE"
    assert "IBuilderConfig.max_aux_streams" not in settings
    assert library.called("Builder.create_network") == [{"flags": 0}]  # strongly typed in 11
    assert library.__dict__["tensor"].shape == (2, 8)


def test_every_option_reaches_the_library(library: StandIn, tmp_path: Path) -> None:
    options = {
        "level": "5",
        "aux_streams": "2",
        "workspace_mib": "64",
        "tiling": "moderate",
        "weight_streaming": "yes",
        "tf32": "yes",
        "timing_cache": "no",
    }
    build(tmp_path, spec(options))
    flags = {call["flag"].name for call in library.called("IBuilderConfig.set_flag")}
    assert flags == {
        "WEIGHT_STREAMING",
        "DISABLE_TIMING_CACHE",
    }
    assert not library.called("IBuilderConfig.clear_flag")
    assert library.settings["IBuilderConfig.builder_optimization_level"] == 5
    assert library.settings["IBuilderConfig.max_aux_streams"] == 2
    assert library.settings["IBuilderConfig.tiling_optimization_level"].name == "MODERATE"
    (limit,) = library.called("IBuilderConfig.set_memory_pool_limit")
    assert limit["pool"].name == "WORKSPACE" and limit["pool_size"] == 64 << 20
    assert not library.called("IBuilderConfig.set_timing_cache")


@pytest.mark.parametrize(
    "shapes", [{"x": (3, 8)}, {"x": (2, 8, 1)}, {"y": (2, 8)}, {"x": (2, 8), "y": (1,)}, {}]
)
def test_sizes_that_the_graph_has_not_are_refused(
    library: StandIn, tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    with pytest.raises(ModelError, match="export"):
        build(tmp_path, spec(shapes=shapes))
    assert not (tmp_path / "plan").exists()


def test_timings_are_kept_for_the_next_build(library: StandIn, tmp_path: Path) -> None:
    first, _ = build(tmp_path, spec())
    assert (first.facts["timings_before"], first.facts["timings_after"]) == (0, 7)
    (file,) = (tmp_path / "cache" / "timing").iterdir()
    assert file.name == "tensorrt-11.4.0.106-nvidia-h100-132.cache"
    second, _ = build(tmp_path, spec())
    assert second.facts["timings_before"] == 7
    given = [
        call["serialized_timing_cache"]
        for call in library.called("IBuilderConfig.create_timing_cache")
    ]
    assert given == [b"", b"timings", b"timings"]  # the last: joined before it is written again
    assert library.called("ITimingCache.combine")[0]["ignore_mismatch"] is False


def test_timings_of_another_gpu_are_left_out(library: StandIn, tmp_path: Path) -> None:
    build(tmp_path, spec())
    library.calls.clear()
    library.answers["IBuilderConfig.set_timing_cache"] = lambda cache, ignore_mismatch: False
    report, _ = build(tmp_path, spec())
    assert report.facts["timings_before"] == 0
    given = [
        call["serialized_timing_cache"]
        for call in library.called("IBuilderConfig.create_timing_cache")
    ]
    assert given[:2] == [b"timings", b""]


def test_timings_that_cannot_be_written_cost_no_build(
    library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "file"))
    report, _ = build(tmp_path, spec())
    assert report.facts["timings_after"] == 0


def test_a_refused_operator_is_named(library: StandIn, tmp_path: Path) -> None:
    library.answers |= {
        "OnnxParser.parse_from_file": lambda model: False,
        "OnnxParser.num_errors": lambda: 1,
        "ParserError.node": lambda: 7,
        "ParserError.node_operator": lambda: "NonZero",
        "ParserError.node_name": lambda: "n7",
        "ParserError.desc": lambda: "no",
    }
    with pytest.raises(ModelError, match=r"refuses the operator NonZero of graph \(node n7\): no"):
        build(tmp_path, spec())


def test_a_refused_network_is_one_line(library: StandIn, tmp_path: Path) -> None:
    def refuse(network: Any, config: Any) -> None:
        log = library.called("Builder")[-1]["logger"]
        log.log(library.ILogger.Severity.ERROR, "no kernel\n for it")

    library.answers["Builder.build_serialized_network"] = refuse
    with pytest.raises(ModelError, match="cannot build generator in bf16: no kernel for it;"):
        build(tmp_path, spec())
    assert not (tmp_path / "plan").exists()


def test_no_usable_gpu_is_one_line(library: StandIn, tmp_path: Path) -> None:
    def nothing(logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library.answers["Builder"] = nothing
    with pytest.raises(ModelError, match="nvidia-smi"):
        build(tmp_path, spec())


def test_a_plan_that_does_not_load_again_is_refused(library: StandIn, tmp_path: Path) -> None:
    library.answers["Runtime.deserialize_cuda_engine"] = lambda **_: None
    with pytest.raises(ModelError, match="does not load"):
        build(tmp_path, spec())


def test_where_it_cannot_build_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(text: str) -> None:
        monkeypatch.setattr(build_tensorrt.TensorRtBuilder, "version", lambda self: text)

    version("")
    assert "pip install" in str(BUILDER.available())
    version("10.16.1")
    assert "10.16.1 is installed, 11 is needed" in str(BUILDER.available())
    version("11.4.0")
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: None)
    assert "tensorrt-rtx" in str(BUILDER.available()) and BUILDER.targets == ()
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: replace(H100, driver=12080))
    assert "580" in str(BUILDER.available())
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: H100)
    assert BUILDER.available() is None and tuple(BUILDER.targets) == (90,)


def test_chips_and_precisions(gpu: Gpu) -> None:
    BUILDER.check("fp8", 90)
    for precision, sm, why in (
        ("bf16", None, "--sm"),
        ("bf16", 80, "sm_90 is"),
        ("fp4", 90, "fp4"),
    ):
        with pytest.raises(ModelError, match=why):
            BUILDER.check(precision, sm)


def test_another_gpu_of_the_same_chip_is_another_engine(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spec()
    h200 = replace(H100, name="NVIDIA H200")
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: h200)
    assert spec().digest != first.digest


def test_plugins_depend_on_what_compiles_them(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_tensorrt, "why_unavailable", lambda: "needs triton: install it")
    assert "triton" not in BUILDER.flags({})
    with pytest.raises(ModelError, match="needs triton"):
        BUILDER.flags({"plugins": "yes"})
    monkeypatch.setattr(build_tensorrt, "why_unavailable", lambda: None)
    monkeypatch.setattr(build_tensorrt, "version", lambda package: f"{package} 3.7")
    assert BUILDER.flags({"plugins": "yes"})["triton"] == "triton 3.7"


def test_plugins_are_made_known_before_the_graph_is_read(
    library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vr_trt.engines.plugins.register_plugins", lambda: library.calls.append(("plugins", {}))
    )
    flags = {**BUILDER.flags({}), "plugins": "yes"}
    build(tmp_path, spec(flags=flags))
    names = [name for name, _ in library.calls]
    assert names.index("plugins") < names.index("OnnxParser.parse_from_file")
    prefer = library.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS
    assert library.called("Builder.create_network") == [{"flags": 1 << int(prefer)}]


def test_the_memory_law_grows_with_the_weights(gpu: Gpu) -> None:
    small, large = (BUILDER.estimate_memory(spec(), w) for w in (0, 1 << 30))
    assert large - small > 3 << 30


def matmul_and_attention(folder: Path) -> Path:
    """y = attention(x wq, x wk, x wv), [n, 8] -> [1, 1, n, 4], in fp32, which has no fused kernel."""
    value, nodes, weights = helper.make_tensor_value_info, [], []
    for i, name in enumerate("qkv"):  # equal weights would be one tensor: the library crashes then
        nodes.append(helper.make_node("MatMul", ["x", f"w{name}"], [f"m{name}"]))
        nodes.append(helper.make_node("Unsqueeze", [f"m{name}", "axes"], [name]))
        weights.append(numpy_helper.from_array(np.full((8, 4), i, np.float32), f"w{name}"))
    graph = helper.make_graph(
        [*nodes, helper.make_node("Attention", ["q", "k", "v"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 8])],
        [value("y", TensorProto.FLOAT, [1, 1, "n", 4])],
        [*weights, numpy_helper.from_array(np.array([0, 1], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    path = folder / "graph.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="data", size_threshold=64)
    return path


def test_tensorrt_rtx_runs_the_same_calls(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The part that both libraries share, executed: a real plan from a graph of any size."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed: pip install 'vr-trt[rtx]'")
    import tensorrt_rtx

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    described: list[int] = []

    def describe(plan: Any, log: Any, folder: Path) -> dict[str, int]:  # would need a GPU
        described.append(plan.nbytes)
        return {}

    monkeypatch.setattr(build_tensorrt, "describe_plan", describe)
    matmul_and_attention(tmp_path)
    options = {"timing_cache": "no", "level": "2", "aux_streams": "0", "tiling": "fast"}
    report, _ = build(tmp_path, spec(options, precision="fp32", shapes={"x": (16, 8)}))
    assert report.facts["plan_bytes"] == (tmp_path / "plan").stat().st_size > 1000
    assert len(described) == 1
    with pytest.raises(ModelError, match="x is"):
        build(tmp_path, spec(options, shapes={"x": (16, 9)}))
    (tmp_path / "data").unlink()
    with pytest.raises(
        ModelError, match=r"cannot read .*graph.onnx: .*Failed to open file: .*data"
    ):
        build(tmp_path, spec(options, shapes={"x": (16, 8)}))


def test_the_log_keeps_errors(library: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    log = tensorrt_network.open_log(library)
    severity = library.ILogger.Severity
    log.log(severity.ERROR, "first")
    log.log(severity.ERROR, "two\nlines")
    log.log(severity.INFO, "later")
    log.log(severity.VERBOSE, "too much")
    assert log.errors == ["first", "two lines"]
    assert capsys.readouterr().err == "[ERROR] first\n[ERROR] two\nlines\n[INFO] later\n"
