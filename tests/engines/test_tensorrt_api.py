"""Our use of TensorRT against the real interface of TensorRT 11.4 and, where installed, of RTX."""

import importlib.util
import json
from pathlib import Path

import pytest
from tests.api_check import ApiCheck, sources_that_import
from tests.api_surface import Surface, read_surface

import vr_trt

BINDINGS = Path(__file__).with_name("tensorrt_11_bindings.json")
PACKAGE = Path(vr_trt.__file__).parent
SHARED = "tensorrt_network.py"  # serves both libraries


def surfaces() -> dict[str, Surface]:
    content = json.loads(BINDINGS.read_text(encoding="utf-8"))
    return {name: content[name] for name in ("tensorrt", "tensorrt.plugin")}


def our_sources() -> dict[str, str]:
    rooms = (PACKAGE / room for room in ("engines", "runtime", "kernels", "bench"))
    found = [sources_that_import(room.resolve(), "tensorrt") for room in rooms]
    return {path: text for texts in found for path, text in texts.items()}


def check(source: str) -> ApiCheck:
    return ApiCheck(surfaces(), {"library": "tensorrt"}).check(source)


def test_the_list_says_what_it_was_read_from() -> None:
    content = json.loads(BINDINGS.read_text(encoding="utf-8"))
    assert content["from"].startswith("tensorrt-cu13-bindings 11.")
    assert "tests.tensorrt_bindings" in content["command"]
    flags = content["tensorrt"]["enums"]["BuilderFlag"]
    assert "STRIP_PLAN" in flags and "FP16" not in flags  # 11 took the precisions away


def test_every_name_and_argument_that_we_use_exists() -> None:
    checker = ApiCheck(surfaces(), {"library": "tensorrt"})
    for path, text in our_sources().items():
        checker.check(text, Path(path).name)
    assert checker.errors == []
    # A checker that lost track of the types would find nothing wrong either.
    assert {
        "tensorrt.IBuilderConfig.builder_optimization_level",
        "tensorrt.IBuilderConfig.set_flag",
        "tensorrt.BuilderFlag.WEIGHT_STREAMING",
        "tensorrt.IBuilderConfig.set_timing_cache",
        "tensorrt.ITimingCache.combine",
        "tensorrt.OnnxParser.parse_from_file",
        "tensorrt.ParserError.node_operator",
        "tensorrt.INetworkDefinition.get_input",
        "tensorrt.IAttention.decomposable",
        "tensorrt.ICudaEngine.weight_streaming_budget_v2",
        "tensorrt.ICudaEngine.get_tensor_mode",
        "tensorrt.IExecutionContext.execute_async_v3",
        "tensorrt.plugin.KernelLaunchParams",
        "tensorrt.plugin.SymIntExprs",
        "tensorrt.plugin.register",
    } <= checker.used
    assert len(checker.used) > 80


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("builder_optimization_level", "builder_optimisation_level"),
        ("BuilderFlag.WEIGHT_STREAMING", "BuilderFlag.WEIGHTS_STREAMING"),
        ("set_flag(trt.BuilderFlag.WEIGHT_STREAMING)", "set_flag(trt.MemoryPoolType.WORKSPACE)"),
        ("ignore_mismatch=False", "ignore_mismatches=False"),
        ("error.node_operator()", "error.node_op()"),
        ("layer.attention.decomposable", "layer.attention.decomposeable"),
        ("device_memory_size_v2", "device_memory_size"),  # as in TensorRT 10
        ("def log(self, severity: Any, message: str)", "def write(self, text: str)"),
        ("trtp.SymIntExprs", "trtp.SymbolicIntExprs"),
        ("launch.grid_x", "launch.gridx"),
        ("shape_expr", "shape_exprs"),
    ],
)
def test_a_misspelt_name_in_our_sources_is_found(right: str, wrong: str) -> None:
    hits = {path: text for path, text in our_sources().items() if right in text}
    assert hits
    for path, text in hits.items():
        assert not check(text).errors
        assert check(text.replace(right, wrong)).errors, f"{wrong} passes in {path}"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("trt.Bulider", "has no Bulider"),
        ("trt.Builder()", "logger missing"),
        ("trt.Builder(trt.Logger(), 1)", "2 positional"),
        ("trt.Builder(trt.Builder(trt.Logger()))", "logger is a Builder"),
        ("trt.Builder(trt.Logger()).create_network(flag=1)", "no argument flag"),
        ("b = trt.Builder(trt.Logger())\nb.num_DLA_cores = 1", "read-only"),
        ("b = trt.Builder(trt.Logger())\nb.threads = 1", "no threads to set"),
        ("getattr(trt, 'Buildr')", "has no Buildr"),
        ("getattr(trt, name)", "cannot be checked"),
        ("class M(trt.IProgressMonitor):\n  def phase_begin(self): ...", "to override"),
        ("class M(trt.IProgressMonitor):\n  def phase_finish(self): ...", "takes [1]"),
        (
            "def f(n: 'trt.INetworkDefinition'):\n  n.get_layer(0).attention",
            "ILayer has no attention",
        ),
        ("def f(n: 'trt.INetworkDefinition'):\n  n.get_inputs()", "has no get_inputs"),
        ("x, y = trt.Logger(), trt.DataType.HALF\nx.log(trt.DataType.HALF, 'a')", "is a DataType"),
    ],
)
def test_the_checker_sees(source: str, error: str) -> None:
    found = check(f"import tensorrt as trt\n{source}").errors
    assert len(found) == 1 and error in found[0]


def test_the_checker_lets_right_uses_pass() -> None:
    source = """
import tensorrt as trt
builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
network = builder.create_network()
config = builder.create_builder_config()
config.max_aux_streams = 2
config.set_flag(trt.BuilderFlag.REFIT)
if (plan := builder.build_serialized_network(network, config)) is not None:
    print(plan.nbytes)
"""
    assert check(source).errors == []


def test_tensorrt_rtx_has_every_name_that_we_use() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed: pip install 'vr-trt[rtx]'")
    import tensorrt_rtx

    surface = read_surface(tensorrt_rtx)
    # What serves both is written as for `tensorrt`.
    both = {"tensorrt_rtx": surface, "tensorrt": surface}
    checker = ApiCheck(both, {"library": "tensorrt_rtx"})
    sources = sources_that_import((PACKAGE / "engines").resolve(), "tensorrt_rtx")
    shared = (PACKAGE / "engines" / SHARED).resolve()
    for path, text in {**sources, str(shared): shared.read_text(encoding="utf-8")}.items():
        checker.check(text, Path(path).name)
    assert checker.errors == []
    assert "tensorrt_rtx.IBuilderConfig.num_compute_capabilities" in checker.used
