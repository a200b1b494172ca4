"""Our plugin as TensorRT would register and launch it, on a stand-in for `tensorrt.plugin`."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

import triton
import triton.language as tl
from tests.api_check import overload_arguments
from tests.library_stand_in import StandIn
from tests.plugin_stand_in import PluginStandIn, tensor

from vr_trt.engines import plugins
from vr_trt.engines.plugins import check_launch, register_plugins
from vr_trt.errors import ModelError
from vr_trt.kernels.aot import assemble, compile_kernel, parameters
from vr_trt.kernels.rms_norm import rms_norm_tile

BINDINGS = Path(__file__).with_name("tensorrt_11_bindings.json")
NAME = "vr_trt::rms_norm"
ARCH = {80: "sm_80", 89: "sm_89", 90: "sm_90a", 100: "sm_100a", 120: "sm_120a"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where Triton keeps what it compiled, so that each kernel is compiled once."""
    return str(tmp_path_factory.mktemp("triton"))


@pytest.fixture
def trtp(monkeypatch: pytest.MonkeyPatch, compiled: str) -> PluginStandIn:
    surface = json.loads(BINDINGS.read_text(encoding="utf-8"))["tensorrt"]
    library, module = StandIn("tensorrt", surface), PluginStandIn()
    library.__dict__["plugin"] = module
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", module)
    monkeypatch.setenv("TRITON_CACHE_DIR", compiled)
    return module


def launch(trtp: PluginStandIn, sizes: tuple[int, ...], dtype: str = "HALF", sm: int = 90) -> Any:
    """What the plugin answers for an input of these sizes."""
    register_plugins(sm)
    data_type = sys.modules["tensorrt"].DataType[dtype]
    x = tensor(sizes, data_type)
    outputs = (trtp.plugins[NAME]["register"](x, 1e-5),)
    assert outputs[0].dtype == data_type and outputs[0].shape_expr is x.shape_expr
    return trtp.plugins[NAME]["aot_impl"](x, 1e-5, outputs, 0)


def test_the_stand_in_has_the_real_modules_signatures(trtp: PluginStandIn) -> None:
    real = json.loads(BINDINGS.read_text(encoding="utf-8"))["tensorrt.plugin"]
    checked = 0
    for name, overloads in real["functions"].items():
        if hasattr(trtp, name):
            assert list(inspect.signature(getattr(trtp, name)).parameters) == list(
                overload_arguments(overloads[0])
            )
            checked += 1
    for name, entry in real["classes"].items():
        cls = getattr(trtp, name, None)
        if cls is not None:
            ours = list(inspect.signature(cls).parameters)
            theirs = overload_arguments(entry["init"][0])
            assert ours == list(theirs)[: len(ours)], name
            assert all("=" in theirs[left_out] for left_out in list(theirs)[len(ours) :])
            known = {*entry.get("methods", ()), *entry.get("properties", ()), *ours, "at"}
            assert {key for key in vars(cls) if not key.startswith("_")} <= known
            checked += 1
    assert checked >= 10


def test_it_registers_once(trtp: PluginStandIn) -> None:
    register_plugins(90)
    register_plugins(90)
    assert set(trtp.plugins) == {NAME}
    assert set(trtp.plugins[NAME]) == {"register", "autotune", "aot_impl"}


def test_input_and_output_have_one_type_and_lie_densely(trtp: PluginStandIn) -> None:
    register_plugins(90)
    (found,) = trtp.plugins[NAME]["autotune"](None, None)
    types = found.io_types.split(", ")
    assert len(types) == 2 and types[0] == types[1] and found.layouts == "LINEAR"
    known = {"FP16", "FP32"} | set(sys.modules["tensorrt"].DataType.__members__)
    assert set(types[0].split("|")) <= known


@pytest.mark.parametrize("sm", ARCH)
@pytest.mark.parametrize("dtype", ["HALF", "BF16"])
def test_ptx_takes_inputs_integers_outputs_and_assembles(
    trtp: PluginStandIn, sm: int, dtype: str
) -> None:
    name, ptx, params, extras = launch(trtp, (4096, 2560), dtype, sm)
    kinds = [part.split()[1] for part in parameters(ptx, name)]
    assert kinds == [".u64"] + [".u32"] * len(extras) + [".u64"]
    assert assemble(ptx, ARCH[sm])[:4] == b"\x7fELF"
    assert f".reqntid {params.block_x.at({})}\n" in ptx
    assert 0 <= params.shared_mem.at({}) <= 48 << 10


@pytest.mark.parametrize("columns", [1, 33, 128, 2560, 8192])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 2049, 10_000_000])
def test_the_grid_covers_every_row_once(trtp: PluginStandIn, rows: int, columns: int) -> None:
    _, _, params, extras = launch(trtp, (rows, columns))
    sizes = {"d0": rows, "d1": columns}
    tile = rms_norm_tile(columns)
    grid = params.grid_x.at(sizes)
    assert (grid - 1) * tile.rows < rows <= grid * tile.rows
    assert (params.grid_y.at(sizes), params.grid_z.at(sizes)) == (1, 1)
    assert params.block_x.at(sizes) == 32 * tile.warps
    assert (params.block_y.at(sizes), params.block_z.at(sizes)) == (1, 1)
    assert [extra.at(sizes) for extra in extras] == [rows, columns]


def test_leading_dimensions_are_rows(trtp: PluginStandIn) -> None:
    _, _, params, extras = launch(trtp, (2, 3, 50, 128))
    sizes = {"d0": 2, "d1": 3, "d2": 50, "d3": 128}
    assert [extra.at(sizes) for extra in extras] == [300, 128]
    assert params.grid_x.at(sizes) == -(-300 // rms_norm_tile(128).rows)


def test_rows_of_odd_length_promise_no_alignment(trtp: PluginStandIn) -> None:
    even, odd = launch(trtp, (64, 128))[1], launch(trtp, (64, 130))[1]
    assert "ld.global.v4" in even and "ld.global.v4" not in odd


@pytest.mark.parametrize("sizes", [(128,), (-1, 128), (4, -1), ()])
def test_sizes_that_are_not_fixed_are_refused(trtp: PluginStandIn, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="fixed sizes"):
        launch(trtp, sizes)


def test_other_types_are_refused(trtp: PluginStandIn) -> None:
    with pytest.raises(ModelError, match="fp16, bf16 or fp32"):
        launch(trtp, (4, 128), "INT32")


def test_without_a_gpu_nothing_is_compiled(
    trtp: PluginStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "present_gpu", lambda: None)
    with pytest.raises(ModelError, match="plugins=no"):
        register_plugins()
    assert not trtp.plugins


@triton.jit
def outputs_first(y, x, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def scaled(x, n, factor, y, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n) * factor, mask=at < n)


@pytest.mark.parametrize(
    ("function", "signature", "extras"),
    [
        (outputs_first, {"y": "*fp32", "x": "*fp32", "n": "i32"}, 1),
        (scaled, {"x": "*fp32", "n": "i32", "factor": "fp32", "y": "*fp32"}, 2),
        (scaled, {"x": "*fp32", "n": "i64", "factor": "fp32", "y": "*fp32"}, 1),
    ],
)
def test_a_kernel_in_another_order_is_refused(
    compiled: str,
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    signature: dict[str, str],
    extras: int,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", compiled)
    kernel = compile_kernel(function, signature, {"BLOCK": 64, "num_warps": 1}, 89)
    with pytest.raises(ModelError, match="inputs, 32-bit integers, outputs"):
        check_launch(kernel, inputs=1, extras=extras, outputs=1)


def test_the_real_plugin_module_accepts_it() -> None:
    """TensorRT's own Python layer checks the signatures and asks for the launch."""
    folder = os.environ.get("VR_TRT_BINDINGS")
    if not folder:
        pytest.skip(
            "VR_TRT_BINDINGS names no folder with TensorRT's bindings: make one with python -m "
            "tests.tensorrt_bindings OUTPUT --keep FOLDER"
        )
    command = [sys.executable, "-m", "tests.engines.real_plugin_module", folder]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["creator"] == ["rms_norm", "vr_trt"] and found["callable"]
    assert found["output"] == ["BF16", [50, 128]]
    assert found["types"] == [["BF16", "BF16"], ["FLOAT", "FLOAT"], ["HALF", "HALF"]]
    tile = rms_norm_tile(128)
    assert found["grid"] == [-(-50 // tile.rows), 1, 1]
    assert found["block"] == [32 * tile.warps, 1, 1]
    assert found["extras"] == [50, 128]
    assert len(parameters(found["ptx"], found["kernel"])) == 4
