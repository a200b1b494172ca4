"""Sessions of the triton backend, driven with a stage that is plain PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pytest
import torch
from tests.engine_graphs import make_spec

pytest.importorskip("triton")

from triton import TritonError

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.selection import needed_stages
from vr_trt.errors import InterruptedRun, ModelError
from vr_trt.runtime import triton_session
from vr_trt.runtime.model import Model
from vr_trt.runtime.session import Session, call, host_floats
from vr_trt.runtime.triton_session import DeviceTensor, TritonSession

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Summing:
    """y = x + state, and the state, in place, becomes the sum."""

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.x, self.state, self.y = (torch.zeros(2, 3, device=device, dtype=dtype) for _ in "xsy")
        self.runs = 0

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        return {"x": self.x, "state.s": self.state}

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        return {"y": self.y, "next.s": self.state}

    def run(self) -> None:
        self.runs += 1
        torch.add(self.x, self.state, out=self.y)
        self.state.copy_(self.y)


def ones(value: float = 1.0) -> np.ndarray:
    return np.full((2, 3), value, np.float32)


@pytest.fixture(params=DEVICES)
def session(request: pytest.FixtureRequest) -> Session:
    return TritonSession(Summing(request.param), "summing")


def test_names_and_shapes(session: Session) -> None:
    assert dict(session.inputs) == {"x": (2, 3), "state.s": (2, 3)}
    assert list(session.outputs) == ["y", "next.s"]


def test_states_go_round_and_outputs_stay(session: Session) -> None:
    first = call(session, {"x": ones(), "state.s": ones(10)})
    second = call(session, {"x": ones(5), "state.s": first["next.s"]})
    assert host_floats(first["y"]).tolist() == ones(11).tolist()  # though the stage wrote again
    assert host_floats(second["y"]).tolist() == ones(16).tolist()
    assert tuple(second["y"].shape()) == (2, 3)


def test_a_state_in_place_is_not_copied() -> None:
    stage = Summing("cpu")
    state = call(TritonSession(stage, "summing"), {"x": ones(), "state.s": ones()})["next.s"]
    assert isinstance(state, DeviceTensor) and state.value is stage.state


def test_tensors_of_other_sessions_are_copied_in(session: Session) -> None:
    class Elsewhere:
        def shape(self) -> tuple[int, int]:
            return 2, 3

        def numpy(self) -> np.ndarray:
            return ones(3).astype(np.float16)

    result = call(session, {"x": Elsewhere(), "state.s": DeviceTensor(torch.ones(2, 3))})
    assert host_floats(result["y"]).tolist() == ones(4).tolist()


def test_bf16_reaches_the_host_as_floats() -> None:
    session = TritonSession(Summing("cpu", torch.bfloat16), "summing")
    y = call(session, {"x": ones(0.5), "state.s": ones()})["y"]
    assert host_floats(y).tolist() == ones(1.5).tolist()


def test_what_does_not_fit_is_refused(session: Session) -> None:
    with pytest.raises(ModelError, match="summing has no input 'z'"):
        session.bind("z", ones())
    with pytest.raises(ModelError, match=r"takes x of \[2, 3\], not of \[2, 4\]"):
        session.bind("x", np.zeros((2, 4), np.float32))
    session.bind("x", ones())
    with pytest.raises(ModelError, match="called without state.s"):
        session.enqueue()


def test_a_cancelled_session_runs_no_more() -> None:
    stage = Summing("cpu")
    session = TritonSession(stage, "summing")
    session.cancel()
    with pytest.raises(InterruptedRun, match="summing was stopped"):
        call(session, {"x": ones(), "state.s": ones()})
    assert stage.runs == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler.\nPlease specify via CC"),
        TritonError("out of resource: shared memory"),
        CalledProcessError(1, ["gcc", "main.c"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_first_run_stumbles_over_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def captured(self: TritonSession) -> None:
        raise error

    monkeypatch.setattr(TritonSession, "_captured", captured)
    with pytest.raises(ModelError, match="summing does not start on the GPU .*doctor") as caught:
        TritonSession(Summing("cpu"), "summing")._opened()
    assert "\n" not in str(caught.value)


def test_a_step_is_opened_before_its_start_leaves_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capturing runs a stage, and both work on the same states."""
    opened: list[str] = []

    def load(plan: Path, stage: str, device: object) -> TritonSession:
        assert plan.parent.name == stage
        opened.append(stage)
        return TritonSession(Summing("cpu"), stage)

    monkeypatch.setattr(triton_session, "load", load)
    monkeypatch.setattr(triton_session, "open_device", lambda plans, parts: len(list(plans)))
    about = About(
        source="tiny", profile="360p", canvas=Canvas(width=64, height=32, latents=6, step=1)
    )
    engines = {
        stage: Engine(
            folder=tmp_path / stage,
            spec=make_spec(backend="triton", stage=stage), about=about, files={},
        )
        for stage in needed_stages(cut=False)
    }  # fmt: skip
    model = Model.of_engines(engines)
    model.session("decode_start")
    model.drop("decode_start")
    model.session("decode_start")  # of the next shot
    assert opened == ["decode_step", "decode_start", "decode_start"]


def test_a_replay_reads_and_leaves_everything_in_place() -> None:
    stage = Summing("cpu")
    session = TritonSession(stage, "summing")
    places = session.tensors
    assert sorted(places) == ["next.s", "state.s", "x", "y"]
    assert places["next.s"] is places["state.s"] is stage.state
    stage.x.fill_(2)
    stage.state.fill_(5)
    session.replay(stream=0)
    assert places["y"].tolist() == places["next.s"].tolist() == ones(7).tolist()
    session.cancel()
    with pytest.raises(InterruptedRun, match="summing was stopped"):
        session.replay(stream=0)
    assert stage.runs == 1


@pytest.mark.gpu
def test_a_session_with_a_stream_of_its_own_runs_there_or_where_it_is_told() -> None:
    own, other = torch.cuda.Stream(), torch.cuda.Stream()
    stage = Summing("cuda")
    session = TritonSession(stage, "summing", own)
    torch.cuda.synchronize()
    with torch.cuda.stream(own):
        torch.cuda._sleep(10_000_000)
        stage.state.fill_(3)
    first = call(session, {"x": ones(), "state.s": DeviceTensor(stage.state)})
    assert host_floats(first["y"]).tolist() == ones(4).tolist()
    with torch.cuda.stream(other):
        torch.cuda._sleep(10_000_000)
        stage.x.fill_(10)
    session.replay(other.cuda_stream)
    other.synchronize()
    assert stage.y.tolist() == ones(14).tolist()


@pytest.mark.gpu
def test_a_call_keeps_order_with_its_stream() -> None:
    stage = Summing("cuda")
    session, stream = TritonSession(stage, "summing"), torch.cuda.Stream()
    runs = stage.runs
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        x = torch.ones(2, 3, device="cuda")
    session.bind("x", DeviceTensor(x))
    session.bind("state.s", ones())
    assert host_floats(session.enqueue(stream.cuda_stream)["y"]).tolist() == ones(2).tolist()
    assert stage.runs == runs  # a replay of the graph
