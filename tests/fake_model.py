"""A model folder of tiny graphs whose every result can be told beforehand.

encode: the mean of 8 x 8 pixels (and of four frames) in channels 0-2; in channel 15 the latent's
index, counted by the carried state. generator: the latent, with the noise in channel 14.
decode: channels 0-2 enlarged; the picture is ruined where channel 15 is not the index that the
decoder's own state counts, so a lost state or a latent out of order shows.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = list[int | str]
_FLOAT = TensorProto.FLOAT


class _Graph:
    """Nodes and constants of a graph under construction; each operator gives its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        name = to or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def cut(self, value: str, start: int, stop: int, axis: int) -> str:
        bounds = [self.const([at], np.int64) for at in (start, stop, axis)]
        return self.op("Slice", value, *bounds)

    def save(self, path: Path, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> None:
        graph = helper.make_graph(
            self.nodes, path.stem, _values(inputs), _values(outputs), initializer=self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        model.ir_version = 10
        onnx.checker.check_model(model)
        onnx.save(model, path)


def _values(shapes: dict[str, Shape]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, _FLOAT, shape) for name, shape in shapes.items()]


def make_fake_model(folder: Path, latents_per_step: int = 1, cut: bool = False) -> Path:
    """Write the model into `folder` and return it; `cut`: its VAE in halves by resolution."""
    folder.mkdir(parents=True, exist_ok=True)
    latent: dict[str, Shape] = {"latent": [1, 16, "T", "h", "w"]}
    for name, latents in (("image", 1), ("start", 2), ("step", latents_per_step)):
        frames = {"image": 1, "start": 5}.get(name, 4 * latents)
        half = cut and name != "image"
        inner, side, label = ("features", 4, "_coarse") if half else ("x", 8, "")
        pixels: dict[str, Shape] = {inner: [1, 3, frames, "H", "W"]}
        state, following = _state(name, "state"), _state(name, "next")
        encode, decode = (folder / f"{v}{label}_{name}.onnx" for v in ("encode", "decode"))
        _encode(name, latents, inner, side).save(encode, pixels | state, latent | following)
        _decode(name, latents, inner, side).save(decode, latent | state, pixels | following)
        if half:
            _make_fine_halves(folder, name)
    window: Shape = [1, 16, "T", "h", "w"]
    _generator().save(
        folder / "generator.onnx", {"noise": window, "latent": window}, {"restored": window}
    )
    write_manifest(folder)
    return folder


def _make_fine_halves(folder: Path, name: str) -> None:
    """One frame a call between pixels and features of half their size; the state counts frames."""
    x: dict[str, Shape] = {"x": [1, 3, 1, "H", "W"]}
    features: dict[str, Shape] = {"features": [1, 3, 1, "H2", "W2"]}
    state, following = _state(name, "state"), _state(name, "next")
    encode, decode = _Graph(), _Graph()
    _count(encode, name, 1)
    kernel = [1, 2, 2]
    encode.op("AveragePool", "x", kernel_shape=kernel, strides=kernel, to="features")
    _count(decode, name, 1)
    _enlarged(decode, "features", [1, 1, 1, 2, 2], to="x")
    encode.save(folder / f"encode_fine_{name}.onnx", x | state, features | following)
    decode.save(folder / f"decode_fine_{name}.onnx", features | state, x | following)


def write_manifest(folder: Path, **changes: Any) -> None:
    """manifest.json for the graphs that lie in `folder`, with `changes` to its content."""
    files = sorted(folder.glob("*.onnx"))
    manifest = {
        "model": "fake",
        "version": "1",
        "stages": {path.stem: path.name for path in files},
        "text_tokens": 3,
        "head_width": 32,
        "rope": "language",
        "latent_channels": 16,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def _state(name: str, side: str) -> dict[str, Shape]:
    if name == "image" or (name, side) == ("start", "state"):
        return {}
    return {f"{side}.count": [1]}


def _count(graph: _Graph, name: str, latents: int) -> str:
    """The index of each latent of this call, [n], and the state for the next call."""
    offsets = graph.const(np.arange(latents))
    if name == "image":
        return offsets
    if name == "start":
        graph.op("Identity", graph.const([latents]), to="next.count")
        return offsets
    graph.op("Add", "state.count", graph.const([latents]), to="next.count")
    return graph.op("Add", offsets, "state.count")


def _encode(name: str, latents: int, source: str, side: int) -> _Graph:
    graph = _Graph()

    def pooled(value: str, length: int) -> str:
        kernel = [length, side, side]
        return graph.op("AveragePool", value, kernel_shape=kernel, strides=kernel)

    if name == "start":
        parts = [pooled(graph.cut(source, 0, 1, 2), 1), pooled(graph.cut(source, 1, 5, 2), 4)]
        rgb = graph.op("Concat", *parts, axis=2)
    else:
        rgb = pooled(source, 1 if name == "image" else 4)
    index = graph.op(
        "Reshape", _count(graph, name, latents), graph.const([1, 1, latents, 1, 1], np.int64)
    )
    zero = graph.op("Mul", graph.cut(rgb, 0, 1, 1), graph.const(0))
    indices = graph.op("Add", zero, index)
    graph.op("Concat", rgb, *[zero] * 12, indices, axis=1, to="latent")
    return graph


def _decode(name: str, latents: int, result: str, side: int) -> _Graph:
    graph = _Graph()
    index = graph.op(
        "Reshape", _count(graph, name, latents), graph.const([1, 1, latents, 1, 1], np.int64)
    )
    wrong = graph.op("Sub", graph.cut("latent", 15, 16, 1), index)
    rgb = graph.op("Add", graph.cut("latent", 0, 3, 1), wrong)
    large = _enlarged(graph, rgb, [1, 1, 1 if name == "image" else 4, side, side])
    large = graph.cut(large, 3, 8, 2) if name == "start" else large
    graph.op("Identity", large, to=result)
    return graph


def _enlarged(graph: _Graph, value: str, factors: list[int], to: str = "") -> str:
    return graph.op(
        "Resize",
        value,
        "",
        graph.const(factors),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        to=to,
    )


def _generator() -> _Graph:
    graph = _Graph()
    parts = [graph.cut("latent", 0, 14, 1), graph.cut("noise", 14, 15, 1)]
    graph.op("Concat", *parts, graph.cut("latent", 15, 16, 1), axis=1, to="restored")
    return graph
