"""A plan at run time: loading it, a context for it, what it says of itself.

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
        "streamable_bytes": engine.streamable_weights_size,
    }
