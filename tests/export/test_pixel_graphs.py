from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vr_trt.export import pixel_graphs
from vr_trt.export.models import find_model_files
from vr_trt.export.pixel_graphs import CORRECTIONS, SHIPPED, PixelShape, export_pixel_graphs
from vr_trt.export.pixels import ToModel, ToModelSub, ToVideo, ToVideoSub
from vr_trt.kernels.detail import wavelet_name
from vr_trt.kernels.resample import chroma_down_matrix, chroma_up_matrix, resize_matrix

NAMES = [
    f"{stage}_{chroma}_{bits}"
    for stage in ("to_model", *(f"to_video_{name}" for name in CORRECTIONS))
    for chroma in ("sub", "full")
    for bits in (8, 16, 32)
]
# Re-exporting all of them takes half a minute; these four cover each module and both depths.
SAMPLE = ["to_model_sub_8", "to_model_full_16", "to_video_wavelet_sub_16", "to_video_adain_full_8"]

SUBSAMPLED = {
    "420": PixelShape(frames=3, source=(22, 14), output=(44, 28), padded=(48, 32), chroma=(2, 2)),
    "422": PixelShape(frames=2, source=(40, 30), output=(20, 16), padded=(32, 16), chroma=(2, 1)),
    "420 odd": PixelShape(
        frames=1, source=(33, 17), output=(66, 34), padded=(80, 48), chroma=(2, 2)
    ),
    "1x1": PixelShape(frames=1, source=(1, 1), output=(8, 8), padded=(16, 16), chroma=(2, 2)),
    "to 1 row": PixelShape(frames=5, source=(9, 3), output=(6, 1), padded=(16, 16), chroma=(2, 2)),
}
FULL = {
    "444": PixelShape(frames=4, source=(21, 37), output=(42, 74), padded=(48, 80), chroma=(1, 1)),
    "1x1": PixelShape(frames=1, source=(1, 1), output=(1, 1), padded=(16, 16), chroma=(1, 1)),
}
DEPTHS = {"8": np.uint8, "16": np.uint16, "32": np.float32}
BT709_TO_RGB = np.array([[1, 0, 1.5748], [1, -0.1873, -0.4681], [1, 1.8556, 0]])
CASES = [(name, label) for name in NAMES for label in (SUBSAMPLED if "_sub_" in name else FULL)]


def inputs(name: str, shape: PixelShape) -> dict[str, np.ndarray]:
    """Random pictures, true matrices: 8 bits, or 10 bits in uint16 or float32."""
    random = np.random.default_rng(0)
    top = 255 if name.endswith("_8") else 1023
    (width, height), (out_w, out_h), (padded_w, padded_h) = shape.source, shape.output, shape.padded
    to_model = name.startswith("to_model")
    luma_w, luma_h = shape.source if to_model else shape.output
    h, w = -(-luma_h // shape.chroma[1]), -(-luma_w // shape.chroma[0])
    made = chroma_up_matrix if to_model else chroma_down_matrix
    chroma = {
        "chroma_rows": made(luma_h, h, shape.chroma[1], "center"),
        "chroma_cols": np.ascontiguousarray(made(luma_w, w, shape.chroma[0], "co-sited").T),
    }
    if to_model:
        depth = DEPTHS[name.rpartition("_")[2]]
        offset = BT709_TO_RGB @ [[0.0], [-0.5], [-0.5]]
        feeds: dict[str, Any] = {
            plane: random.integers(0, top + 1, (shape.frames, *size)).astype(depth)
            for plane, size in (("y", (height, width)), ("u", (h, w)), ("v", (h, w)))
        } | {
            "to_rgb": np.concatenate((BT709_TO_RGB / top, offset), 1).astype(np.float32),
            "rows": resize_matrix(height, out_h, padded_h),
            "cols": np.ascontiguousarray(resize_matrix(width, out_w, padded_w).T),
        }
    else:
        canvas = (1, 3, shape.frames, padded_h, padded_w)
        from_rgb = np.column_stack((np.linalg.inv(BT709_TO_RGB), [0, 0.5, 0.5])) * top
        feeds = {
            "x": random.uniform(-1.1, 1.1, canvas).astype(np.float32),
            "reference": random.uniform(-1, 1, canvas).astype(np.float32),
            "from_rgb": from_rgb.astype(np.float32),
            "dither": random.uniform(0.01, 0.99, (out_h, out_w)).astype(np.float32),
            "limits": np.array([top // 64, top - top // 64], np.float32),
        }
    return feeds | (chroma if "_sub_" in name else {})


def module(name: str) -> torch.nn.Module:
    sub = "_sub_" in name
    if name.startswith("to_model"):
        return ToModelSub() if sub else ToModel()
    fix, detail = CORRECTIONS[name.split("_")[2]]
    depth = torch.from_numpy(np.zeros(1, DEPTHS[name.rpartition("_")[2]])).dtype
    return (ToVideoSub if sub else ToVideo)(fix, depth, detail)


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, feeds)
    return outputs


def check_against_torch(path: Path, shape: PixelShape) -> None:
    feeds = inputs(path.stem, shape)
    with torch.no_grad():
        wanted = module(path.stem)(**{k: torch.from_numpy(v) for k, v in feeds.items()})
    given = run(path, feeds)
    if path.stem.startswith("to_model"):
        expected = wanted.numpy()
        assert given[0].shape == expected.shape
        error = np.sqrt(np.mean((given[0] - expected) ** 2) / np.mean(expected**2))
        assert error <= 1e-4
        return
    for plane, tensor in zip(given, wanted, strict=True):
        expected = tensor.numpy()
        assert plane.dtype == expected.dtype
        assert plane.shape == expected.shape
        difference = np.abs(plane.astype(np.int32) - expected.astype(np.int32))
        assert difference.max() <= 1
        assert np.mean(difference != 0) <= 0.005  # only where the last bit decides a rounding


def signature(model: onnx.ModelProto) -> dict[str, tuple[int, list[str | int]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }


def check_same_graph(fresh: Path, shipped: Path) -> None:
    new, old = onnx.load(fresh), onnx.load(shipped)
    assert signature(new) == signature(old)
    operators = [Counter(node.op_type for node in m.graph.node) for m in (new, old)]
    assert operators[0] == operators[1]
    assert {o.domain: o.version for o in new.opset_import} == {"": 23}
    shape = SUBSAMPLED["420"] if "_sub_" in fresh.stem else FULL["444"]
    feeds = inputs(fresh.stem, shape)
    for given, wanted in zip(run(fresh, feeds), run(shipped, feeds), strict=True):
        np.testing.assert_array_equal(given, wanted)


def test_every_pixel_graph_is_shipped_and_small() -> None:
    assert sorted(p.stem for p in SHIPPED.glob("*.onnx")) == sorted(NAMES)
    assert max(p.stat().st_size for p in SHIPPED.glob("*.onnx")) < 13_000


@pytest.mark.parametrize(("name", "label"), CASES)
def test_shipped_graph_equals_its_module(name: str, label: str) -> None:
    shape = (SUBSAMPLED if "_sub_" in name else FULL)[label]
    check_against_torch(SHIPPED / f"{name}.onnx", shape)


@pytest.mark.parametrize("name", SAMPLE)
def test_shipped_graph_is_what_the_code_exports(name: str, tmp_path: Path) -> None:
    (path,) = export_pixel_graphs(tmp_path, only=[name])
    check_same_graph(path, SHIPPED / path.name)


@pytest.mark.parametrize("bands", [1, 5])
def test_a_graph_takes_as_many_bands_as_the_model_makes(
    bands: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detail = (1.0,) * bands
    name = wavelet_name(detail)
    monkeypatch.setattr(pixel_graphs, "CORRECTIONS", {name: ("wavelet", detail)})
    monkeypatch.setitem(CORRECTIONS, name, ("wavelet", detail))
    (path,) = export_pixel_graphs(tmp_path, only=[f"to_video_{name}_full_8"])
    check_against_torch(path, FULL["444"])
    blurs = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert len(blurs) == bands


@pytest.mark.parametrize("model", ["nano"])
def test_every_model_here_has_its_correction(model: str) -> None:
    name = wavelet_name(find_model_files(model).detail)
    assert {f"to_video_{name}_{c}_{b}" for c in ("sub", "full") for b in (8, 16)} <= set(NAMES)


@pytest.mark.slow
def test_all_shipped_graphs_are_what_the_code_exports(tmp_path: Path) -> None:
    paths = export_pixel_graphs(tmp_path)
    assert sorted(p.stem for p in paths) == sorted(NAMES)
    for path in paths:
        check_same_graph(path, SHIPPED / path.name)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_outputs_and_sizes_are_named_as_agreed(name: str) -> None:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    plane = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(DEPTHS[name.rpartition("_")[2]]))
    real = onnx.TensorProto.FLOAT
    canvas = (real, [1, 3, "F", "Hp", "Wp"])
    sub = "_sub_" in name
    if name.startswith("to_model"):
        chroma = (plane, ["F", "h", "w"] if sub else ["F", "H", "W"])
        agreed = {
            "y": (plane, ["F", "H", "W"]),
            "u": chroma,
            "v": chroma,
            "to_rgb": (real, [3, 4]),
            "rows": (real, ["Hp", "H"]),
            "cols": (real, ["W", "Wp"]),
            "x": canvas,
        }
        resampling = {"chroma_rows": (real, ["H", "h"]), "chroma_cols": (real, ["w", "W"])}
    else:
        chroma = (plane, ["F", "h", "w"] if sub else ["F", "Ho", "Wo"])
        agreed = {
            "x": canvas,
            "reference": canvas,
            "from_rgb": (real, [3, 4]),
            "dither": (real, ["Ho", "Wo"]),
            "limits": (real, [2]),
            "y": (plane, ["F", "Ho", "Wo"]),
            "u": chroma,
            "v": chroma,
        }
        resampling = {"chroma_rows": (real, ["h", "Ho"]), "chroma_cols": (real, ["Wo", "w"])}
    assert signature(model) == agreed | (resampling if sub else {})


@pytest.mark.parametrize("name", NAMES)
def test_graphs_carry_readable_names_and_nothing_of_the_tracing_machine(name: str) -> None:
    path = SHIPPED / f"{name}.onnx"
    nodes = [node.name for node in onnx.load(path).graph.node]
    assert len(set(nodes)) == len(nodes)
    scopes = {node.split("/")[0] for node in nodes if "/" in node}
    stages = {"colour", "resize"} if name.startswith("to_model") else {"crop", "colour", "quantise"}
    assert stages <= scopes <= stages | {"chroma", "fix", "sizes"}
    assert b".py" not in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "label"), [("to_model_sub_8", "420"), ("to_video_wavelet_sub_8", "422")]
)
def test_static_graphs_have_only_numbers_for_sizes(name: str, label: str, tmp_path: Path) -> None:
    shape = SUBSAMPLED[label]
    (path,) = export_pixel_graphs(tmp_path, shape, only=[name])
    model = onnx.load(path)
    assert all(isinstance(d, int) for _, dims in signature(model).values() for d in dims)
    assert not any(node.op_type == "Shape" for node in model.graph.node)
    check_against_torch(path, shape)


def test_a_graph_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to_model_sub_9"):
        export_pixel_graphs(tmp_path, only=["to_model_sub_9"])
    with pytest.raises(ValueError, match="to_model_sub_8"):
        export_pixel_graphs(tmp_path, FULL["444"], only=["to_model_sub_8"])
