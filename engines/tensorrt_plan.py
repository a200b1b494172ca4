"""A plan at run time: loading it, putting its weights back, what it says of itself.

Loading and contexts serve TensorRT and TensorRT-RTX, `library` being the module of either.

Never executed by us; see `build_tensorrt`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.errors import MemoryBudgetError, ModelError

if TYPE_CHECKING:
    import tensorrt as trt

LAYERS = "layers.json"  # beside the plan: what became of the graph


def load_engine(
    library: Any, plan: Any, log: "trt.ILogger", budget: int | None = None
) -> "trt.ICudaEngine":
    """The engine of `plan`, a readable buffer; ModelError for a plan of another library or GPU.

    `budget` is the device memory in bytes for the weights of a plan that streams them; where it is
    None the library chooses.
    """
    runtime = library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError(
            "the plan does not load: it is damaged, or of another TensorRT or GPU; build it again"
        )
    if engine.streamable_weights_size:
        automatic = engine.get_weight_streaming_automatic_budget()
        engine.weight_streaming_budget_v2 = automatic if budget is None else budget
    return engine


def refit(engine: "trt.ICudaEngine", onnx_path: Path, log: "trt.ILogger") -> None:
    """Give a plan built with `strip` the weights of `onnx_path`, the graph it was built from.

    ModelError names the first weight that the graph does not have; the engine is unusable then.
    """
    import tensorrt as trt

    refitter = trt.Refitter(engine, log)
    parser = trt.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_file(str(onnx_path)):
        said = parser.get_error(0).desc() if parser.num_errors else "it gave no reason"
        raise ModelError(f"the weights of {onnx_path} do not fit the plan: {said}; build it again")
    if missing := refitter.get_missing_weights():
        raise ModelError(
            f"{onnx_path} lacks {len(missing)} of the plan's weights, first {missing[0]}: build "
            "the engine again from this graph"
        )
    if not refitter.refit_cuda_engine():
        raise ModelError(f"the weights of {onnx_path} were refused: build the engine again")


def complete_plan(engine: "trt.ICudaEngine") -> bytes:
    """The plan of an engine with its weights, after `refit`; it can be refitted again."""
    import tensorrt as trt

    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    return bytes(engine.serialize_with_config(config))


def create_context(library: Any, engine: "trt.ICudaEngine") -> "trt.IExecutionContext":
    """A context that is given the memory of its activations by whoever runs it.

    MemoryBudgetError where the device has too little for the rest.
    """
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    context = engine.create_execution_context(strategy)
    if context is None:
        raise MemoryBudgetError(
            f"no device memory for the engine's {engine.device_memory_size_v2 >> 20} MiB of "
            "activations: choose a smaller profile"
        )
    return context


def describe_plan(plan: Any, log: "trt.ILogger", folder: Path) -> dict[str, int]:
    """Load a new plan, write its layers to `LAYERS` in `folder`, return its memory in bytes."""
    import tensorrt as trt

    engine = load_engine(trt, plan, log)
    inspector = engine.create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    (folder / LAYERS).write_text(layers, encoding="utf-8")
    return {
        "layers": engine.num_layers,
        "aux_streams": engine.num_aux_streams,
        "device_bytes": engine.device_memory_size_v2,
        "weight_bytes": engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE),
        "stripped_bytes": engine.get_engine_stat(trt.EngineStat.STRIPPED_WEIGHTS_SIZE),
        "streamable_bytes": engine.streamable_weights_size,
    }
