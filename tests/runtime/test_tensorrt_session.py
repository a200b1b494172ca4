"""TensorRT's sessions on a recorded device, and a whole run on them."""

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests import tensorrt_stand_in
from tests.fake_model import make_fake_model
from tests.media import make_video, read_frames
from tests.recorded_device import RecordedDevice

from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError
from vr_trt.runtime.device_tensor import BF16, DeviceTensor, from_kind, to_kind
from vr_trt.runtime.onnxruntime_session import load
from vr_trt.runtime.session import call, host_floats
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.tensorrt_session import Gpu, TensorRtSession, open_gpu


def counter(path: Path, kind: int = TensorProto.FLOAT) -> Path:
    """y = x + state, next.n = state.n + x, in vectors of 4."""
    nodes = [
        helper.make_node("Add", ["x", "state.n"], ["y"]),
        helper.make_node("Add", ["state.n", "x"], ["next.n"]),
    ]
    values = [helper.make_tensor_value_info(n, kind, [4]) for n in ("x", "state.n", "y", "next.n")]
    graph = helper.make_graph(nodes, "counter", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def gpu_on(device: RecordedDevice, **options: Any) -> Gpu:
    library = tensorrt_stand_in.library(device, {}, **options)
    return Gpu(library=library, device=device, stream=device.stream())


def ones(value: float) -> np.ndarray:
    return np.full(4, value, np.float32)


@pytest.fixture
def device() -> RecordedDevice:
    return RecordedDevice()


def test_a_state_stays_on_the_device(tmp_path: Path, device: RecordedDevice) -> None:
    gpu = gpu_on(device)
    session = TensorRtSession(counter(tmp_path / "plan"), gpu)
    assert session.inputs == {"x": (4,), "state.n": (4,)}
    assert session.outputs == ("y", "next.n")
    state: Any = ones(0)
    for turn in range(1, 4):
        out = call(session, {"x": ones(turn), "state.n": state})
        state = out["next.n"]
    assert "synchronize" not in device.asked  # the host ran ahead
    assert device.asked.count("copy_in") == 4  # x each time, the first state
    assert host_floats(out["y"]).tolist() == [6] * 4
    assert host_floats(state).tolist() == [6] * 4


def test_all_memory_goes_back(tmp_path: Path, device: RecordedDevice) -> None:
    gpu = gpu_on(device)
    session = TensorRtSession(counter(tmp_path / "plan"), gpu)
    out = call(session, {"x": ones(1), "state.n": ones(2)})
    stream = gpu.stream
    del out, session, gpu
    gc.collect()
    device.synchronize(stream)
    assert device.memory == {}


def test_stages_share_the_memory_of_their_activations(
    tmp_path: Path, device: RecordedDevice
) -> None:
    gpu = gpu_on(device, scratch=1 << 20)
    for name in ("one", "other"):
        session = TensorRtSession(counter(tmp_path / name), gpu)
        call(session, {"x": ones(1), "state.n": ones(1)})
    device.synchronize(gpu.stream)
    large = [size for size in map(len, device.memory.values()) if size >= 1 << 20]
    assert len(large) == 1


def test_halves_are_fed_and_read_in_float32(tmp_path: Path, device: RecordedDevice) -> None:
    session = TensorRtSession(counter(tmp_path / "plan", TensorProto.FLOAT16), gpu_on(device))
    out = call(session, {"x": ones(0.5), "state.n": ones(2)})
    assert out["y"].numpy().dtype == np.float16
    assert host_floats(out["y"]).tolist() == [2.5] * 4


def test_the_cpu_takes_over_what_the_device_made(tmp_path: Path, device: RecordedDevice) -> None:
    plan = counter(tmp_path / "plan.onnx")
    out = call(TensorRtSession(plan, gpu_on(device)), {"x": ones(1), "state.n": ones(2)})
    following = call(load(plan), {"x": ones(1), "state.n": out["next.n"]})
    assert host_floats(following["next.n"]).tolist() == [4] * 4
    assert StatePool().copy(out["next.n"]).tolist() == [3] * 4


def test_refusals_are_one_line(tmp_path: Path, device: RecordedDevice) -> None:
    gpu = gpu_on(device)
    (tmp_path / "broken").write_bytes(b"no plan")
    with pytest.raises(ModelError, match="broken: the plan does not load.*no plan"):
        TensorRtSession(tmp_path / "broken", gpu)
    with pytest.raises(ModelError, match="cannot read .*missing"):
        TensorRtSession(tmp_path / "missing", gpu)
    session = TensorRtSession(counter(tmp_path / "plan"), gpu)
    with pytest.raises(ModelError, match="has no input 'z'"):
        session.bind("z", ones(1))
    with pytest.raises(ModelError, match=r"takes x of \[4\], not of \[3\]"):
        session.bind("x", ones(1)[:3])
    session.bind("x", ones(1))
    with pytest.raises(ModelError, match=r"without state\.n"):
        session.enqueue()
    session.cancel()
    with pytest.raises(InterruptedRun):
        session.enqueue()


def test_too_little_room(tmp_path: Path) -> None:
    device = RecordedDevice(room=1000)
    session = TensorRtSession(counter(tmp_path / "plan"), gpu_on(device, scratch=4000))
    with pytest.raises(MemoryBudgetError, match="smaller profile"):
        call(session, {"x": ones(1), "state.n": ones(2)})


def test_a_call_that_fails(
    tmp_path: Path, device: RecordedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = TensorRtSession(counter(tmp_path / "plan"), gpu_on(device))
    monkeypatch.setattr(tensorrt_stand_in.Context, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(ModelError, match="failed: it gave no reason"):
        call(session, {"x": ones(1), "state.n": ones(2)})
    monkeypatch.setattr(tensorrt_stand_in.Engine, "create_execution_context", lambda *_: None)
    with pytest.raises(MemoryBudgetError, match="no device memory"):
        TensorRtSession(tmp_path / "plan", gpu_on(device))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ModelError, match=r"pip install 'vr-trt\[rtx\]'"):
        open_gpu("tensorrt-rtx", RecordedDevice())


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_bf16_is_that_of_pytorch(values: list[float]) -> None:
    array = np.array(values, np.float32)
    ours = from_kind(to_kind(array, BF16), BF16)
    theirs = torch.from_numpy(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(ours, theirs)


def test_bf16_goes_there_and_back(device: RecordedDevice) -> None:
    tensor = DeviceTensor(device, device.stream(), (4,), BF16)
    tensor.put(ones(1 + 2**-9))
    assert tensor.numpy().tolist() == [1.0] * 4


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.parametrize("cut", [False, True])
def test_a_whole_run_is_that_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: RecordedDevice, cut: bool
) -> None:
    """Engines of the cache, an invented card, TensorRT's stand-in: frames equal the CPU's."""
    from tests.runtime.test_device_run import EXACT, FILM, NETWORKS
    from tests.runtime.test_serving import add_engines

    from vr_trt import Restorer
    from vr_trt.engines.selection import Machine
    from vr_trt.runtime import serving, tensorrt_session

    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    folder = make_fake_model(tmp_path / "model", cut=cut)
    add_engines(folder, EXACT, cut, backend="tensorrt-rtx", targets=(89,), precision="fp16")
    stand_in = tensorrt_stand_in.library(device, NETWORKS)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", stand_in)
    monkeypatch.setattr(tensorrt_session, "CudaDevice", lambda: device)
    here = frozenset({"onnxruntime", "tensorrt-rtx"})
    card = Machine(sm=89, memory=32 << 30, installed=here, runs=serving.SESSIONS)
    monkeypatch.setattr(serving, "this_machine", lambda: card)
    film = make_video(tmp_path / "in.mkv", frames=30, size=FILM)
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        report = restorer.restore(film, tmp_path / "gpu.mkv")
    assert report.engines.startswith("tensorrt-rtx fp16 at 160x128")
    assert device.asked.count("execute") > 10
    with Restorer(model=str(folder), profile="360p", backend="onnxruntime") as restorer:
        restorer.restore(film, tmp_path / "cpu.mkv")
    theirs, ours = (
        np.stack([frame.to_ndarray() for frame in read_frames(tmp_path / f"{name}.mkv")])
        for name in ("cpu", "gpu")
    )
    assert len(theirs) == 30 and np.array_equal(theirs, ours)
