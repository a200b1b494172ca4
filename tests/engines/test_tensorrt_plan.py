"""Loading and describing TensorRT 11 plans, against a stand-in with real signatures."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.library_stand_in import StandIn

from vr_trt.engines import tensorrt_plan
from vr_trt.errors import MemoryBudgetError, ModelError

BINDINGS = Path(__file__).with_name("tensorrt_11_bindings.json")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    trt = StandIn("tensorrt", json.loads(BINDINGS.read_text(encoding="utf-8"))["tensorrt"])
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt


def opened(library: StandIn, budget: int | None = None) -> tuple[Any, Any]:
    log = library.Logger()
    return tensorrt_plan.load_engine(library, b"plan", log, budget), log


def test_a_plan_is_loaded_and_keeps_its_weights_on_the_card(library: StandIn) -> None:
    opened(library)
    assert library.called("Runtime.deserialize_cuda_engine") == [{"serialized_engine": b"plan"}]
    assert "ICudaEngine.weight_streaming_budget_v2" not in library.settings


def test_weights_are_streamed_within_a_budget(library: StandIn) -> None:
    library.answers["ICudaEngine.streamable_weights_size"] = lambda: 1 << 30
    library.answers["ICudaEngine.get_weight_streaming_automatic_budget"] = lambda: 12345
    opened(library)
    assert library.settings["ICudaEngine.weight_streaming_budget_v2"] == 12345
    opened(library, budget=0)
    assert library.settings["ICudaEngine.weight_streaming_budget_v2"] == 0


def test_too_little_device_memory_is_one_line(library: StandIn) -> None:
    engine, _ = opened(library)
    assert tensorrt_plan.create_context(library, engine) is not None
    library.answers["ICudaEngine.create_execution_context"] = lambda **_: None
    library.answers["ICudaEngine.device_memory_size_v2"] = lambda: 3 << 30
    with pytest.raises(MemoryBudgetError, match="3072 MiB"):
        tensorrt_plan.create_context(library, engine)


def test_a_foreign_plan_is_refused(library: StandIn) -> None:
    library.answers["Runtime.deserialize_cuda_engine"] = lambda **_: None
    with pytest.raises(ModelError, match="another TensorRT or GPU"):
        opened(library)
