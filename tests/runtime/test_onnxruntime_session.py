"""ONNX Runtime behind the session protocol."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.fake_model import make_fake_model, write_manifest

from vr_trt.errors import ModelError
from vr_trt.runtime.model import Model
from vr_trt.runtime.onnxruntime_session import OrtOptions, load
from vr_trt.runtime.session import call, host_floats


def half_graph(path: Path) -> Path:
    """y = 2 x in float16."""
    two = helper.make_tensor("two", TensorProto.FLOAT16, [1], [2.0])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["N"]) for n in "xy"]
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    graph = helper.make_graph([node], "half", value[:1], value[1:], initializer=[two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def test_a_graph_in_half_precision_is_fed_and_read_in_float32(tmp_path: Path) -> None:
    session = load(half_graph(tmp_path / "half.onnx"), OrtOptions(threads=1))
    doubled = call(session, {"x": np.array([0.5, 3.0], np.float32)})["y"]
    assert doubled.numpy().dtype == np.float16
    np.testing.assert_array_equal(host_floats(doubled), np.array([1, 6], np.float32))


def test_arrays_that_are_views_are_bound_as_they_look(tmp_path: Path) -> None:
    session = load(half_graph(tmp_path / "half.onnx"))
    every_other = np.arange(6, dtype=np.float32)[::2]
    np.testing.assert_array_equal(host_floats(call(session, {"x": every_other})["y"]), [0, 4, 8])


def test_a_call_does_not_reuse_the_last_ones_inputs(tmp_path: Path) -> None:
    session = load(half_graph(tmp_path / "half.onnx"))
    call(session, {"x": np.ones(1, np.float32)})
    with pytest.raises(ModelError, match="cannot run"):
        session.enqueue()


def test_a_precision_that_the_cpu_lacks_is_refused(tmp_path: Path) -> None:
    folder = make_fake_model(tmp_path / "fake")
    write_manifest(folder, precision="bf16")
    with pytest.raises(ModelError, match="bf16"):
        Model(folder)
