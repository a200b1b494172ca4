"""The sizes that the tests export, and what every static graph must be."""

from collections.abc import Callable

import onnx
from tests.tiny_model import Exported

from vr_trt.export.export_model import ExportPlan
from vr_trt.export.stages import StageShape

PORTRAIT = StageShape(height=48, width=32, latents=6, step=2)  # time shifts: 1, 2, 2, 1
LANDSCAPE = StageShape(height=16, width=48, latents=3)
RAGGED = StageShape(height=320, width=384, latents=5)  # windows of 19 + 1 rows, 22 + 2 columns
PANORAMA = StageShape(height=16, width=6720, latents=2)  # one row of tokens
CALLS = ("start", "step", "image")
STAGES = [f"{verb}_{call}" for verb in ("encode", "decode") for call in CALLS]
ANY_SIZE_STAGES = [*(f"encode_{call}" for call in CALLS), "generator"]
# Each a function of its inputs' values and static shapes; nothing that loops, searches or counts.
STATIC_OPERATORS = {
    "Add", "Attention", "Cast", "Concat", "ConstantOfShape", "Conv", "Div", "Expand", "Gather", "Gelu",
    "Gemm", "GroupNormalization", "MatMul", "Mul", "Pad", "RMSNormalization", "ReduceMean",
    "ReduceSum", "Reciprocal", "Reshape", "Sigmoid", "Slice", "Sqrt", "Sub", "Transpose",
    "Unsqueeze",
}  # fmt: skip
ANY_SIZE_OPERATORS = STATIC_OPERATORS | {"Shape", "Squeeze"}
Make = Callable[[ExportPlan], Exported]


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def check_static(given: Exported, stage: str) -> None:
    onnx.checker.check_model(given.folder / f"{stage}.onnx", full_check=True)
    model = given.model(stage)
    assert {o.domain: o.version for o in model.opset_import} == {"": 23}
    operators = {node.op_type for node in model.graph.node}
    assert operators - STATIC_OPERATORS == set()
    assert not model.functions and not any(
        attribute.HasField("g") for node in model.graph.node for attribute in node.attribute
    )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        assert all(isinstance(size, int) and size > 0 for size in dims(value)), value.name
