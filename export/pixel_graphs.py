"""Exports `to_model_*` and `to_video_*` to ONNX: `python -m vr_trt.export.pixel_graphs [FOLDER]`.

Without a shape every size is dynamic: those are the graphs that ship in `engines/pixels/`.
With one they are static, as engines of other backends want them. Size symbols are those of
`vr_trt.export.pixels`.
"""

import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from vr_trt.export.colour_fix import COLOUR_FIXES, ColourFix
from vr_trt.export.config import DETAIL_NANO
from vr_trt.export.onnx_graph import OPSET, layer_of, quiet_tracer
from vr_trt.export.pixels import ToModel, ToModelSub, ToVideo, ToVideoSub
from vr_trt.kernels.detail import PUBLISHED_DETAIL, wavelet_name

SHIPPED = Path(__file__).resolve().parents[1] / "engines" / "pixels"
# Planes by the bits of an item: 32 are code values in float32, for backends without uint16.
DEPTHS = {8: torch.uint8, 16: torch.uint16, 32: torch.float32}

# By the name in a graph's name: the wavelet is there for each share of detail that a model has.
CORRECTIONS: dict[str, tuple[ColourFix, tuple[float, ...]]] = {
    **{fix: (fix, PUBLISHED_DETAIL) for fix in COLOUR_FIXES},
    wavelet_name(DETAIL_NANO): ("wavelet", DETAIL_NANO),
}

Dims = tuple[str | int, ...]

_TO_MODEL: dict[str, Dims] = {
    "y": ("F", "H", "W"),
    "u": ("F", "H", "W"),
    "v": ("F", "H", "W"),
    "to_rgb": (3, 4),
    "rows": ("Hp", "H"),
    "cols": ("W", "Wp"),
}
_TO_MODEL_SUB = _TO_MODEL | {
    "u": ("F", "h", "w"),
    "v": ("F", "h", "w"),
    "chroma_rows": ("H", "h"),
    "chroma_cols": ("w", "W"),
}
_TO_VIDEO: dict[str, Dims] = {
    "x": (1, 3, "F", "Hp", "Wp"),
    "reference": (1, 3, "F", "Hp", "Wp"),
    "from_rgb": (3, 4),
    "dither": ("Ho", "Wo"),
    "limits": (2,),
}
_TO_VIDEO_SUB = _TO_VIDEO | {"chroma_rows": ("h", "Ho"), "chroma_cols": ("Wo", "w")}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelShape:
    """Sizes of a static graph, in pixels; `chroma` are the (horizontal, vertical) factors."""

    frames: int
    source: tuple[int, int]  # width, height
    output: tuple[int, int]
    padded: tuple[int, int]
    chroma: tuple[int, int]

    def sizes(self, luma: tuple[int, int]) -> dict[str, int]:
        """Each size symbol's value, where chroma belongs to a picture of `luma` pixels."""
        return {
            "F": self.frames,
            **dict(zip(("W", "H"), self.source, strict=True)),
            **dict(zip(("Wo", "Ho"), self.output, strict=True)),
            **dict(zip(("Wp", "Hp"), self.padded, strict=True)),
            "w": -(-luma[0] // self.chroma[0]),
            "h": -(-luma[1] // self.chroma[1]),
        }


# What a dynamic graph is traced with: any sizes do that differ and exceed 1.
_TRACED = PixelShape(frames=3, source=(14, 10), output=(28, 20), padded=(48, 32), chroma=(2, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    name: str
    module: nn.Module
    inputs: dict[str, Dims]
    outputs: dict[str, Dims]
    depth: torch.dtype  # of the integer planes

    def example(self, sizes: dict[str, int]) -> dict[str, Tensor]:
        planes = ("y", "u", "v")
        return {
            name: torch.zeros(
                [sizes[d] if isinstance(d, str) else d for d in dims],
                dtype=self.depth if name in planes else torch.float32,
            )
            for name, dims in self.inputs.items()
        }


def export_pixel_graphs(
    folder: Path, shape: PixelShape | None = None, only: Collection[str] = ()
) -> list[Path]:
    """Write the pixel graphs into `folder`, made if missing, and return their paths.

    With a `shape` the graphs are static, and only those of its chroma (`sub` or `full`) are made.
    `only` lists names without ".onnx"; empty means all. Raises ValueError for a name that is not there.
    """
    graphs = [
        graph
        for graph in _graphs()
        if (not only or graph.name in only)
        and (shape is None or ("_sub_" in graph.name) == (shape.chroma != (1, 1)))
    ]
    if len(graphs) < max(len(only), 1):
        raise ValueError(f"no such pixel graphs for shape {shape}: {sorted(only)}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{graph.name}.onnx" for graph in graphs]
    for graph, path in zip(graphs, paths, strict=True):
        onnx.save(_exported(graph, shape), path)
    return paths


def _graphs() -> list[_Graph]:
    graphs = []
    for chroma, (bits, depth) in product(("sub", "full"), DEPTHS.items()):
        sub = chroma == "sub"
        graphs.append(
            _Graph(
                name=f"to_model_{chroma}_{bits}",
                module=ToModelSub() if sub else ToModel(),
                inputs=_TO_MODEL_SUB if sub else _TO_MODEL,
                outputs={"x": (1, 3, "F", "Hp", "Wp")},
                depth=depth,
            )
        )
        plane: Dims = ("F", "Ho", "Wo")
        small: Dims = ("F", "h", "w") if sub else plane
        for name, (fix, detail) in CORRECTIONS.items():
            graphs.append(
                _Graph(
                    name=f"to_video_{name}_{chroma}_{bits}",
                    module=(ToVideoSub if sub else ToVideo)(fix, depth, detail),
                    inputs=_TO_VIDEO_SUB if sub else _TO_VIDEO,
                    outputs={"y": plane, "u": small, "v": small},
                    depth=depth,
                )
            )
    return graphs


def _exported(graph: _Graph, shape: PixelShape | None) -> onnx.ModelProto:
    traced = shape or _TRACED
    chroma_of = traced.source if "y" in graph.inputs else traced.output
    example = graph.example(traced.sizes(chroma_of))
    dynamic = {
        name: {i: torch.export.Dim.DYNAMIC for i, d in enumerate(dims) if isinstance(d, str)}
        for name, dims in graph.inputs.items()
    }
    with quiet_tracer():
        program = torch.onnx.export(
            graph.module.eval(),
            kwargs=example,
            dynamic_shapes=None if shape else dynamic,
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = _tidy(program.model_proto, graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tidy(model: onnx.ModelProto, graph: _Graph) -> onnx.ModelProto:
    """Name nodes and values by module and operator, sizes by symbol; drop the tracer's notes.

    The notes hold stack traces, which are longer than the graph and name the tracing machine.
    """
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    renamed: dict[str, str] = {}
    count: Counter[str] = Counter()
    for i, constant in enumerate(model.graph.initializer):
        renamed[constant.name] = constant.name = f"constant_{i}"
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        stem = "/".join((*layer_of(notes), node.op_type))
        node.name = stem if not count[stem] else f"{stem}_{count[stem]}"
        count[stem] += 1
        for i, name in enumerate(node.output):
            renamed[name] = name if name in kept else node.name + (f":{i}" if i else "")
            node.output[i] = renamed[name]
        node.input[:] = [renamed.get(name, name) for name in node.input]
        del node.metadata_props[:]
    dims = graph.inputs | graph.outputs
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        for dim, size in zip(value.type.tensor_type.shape.dim, dims[value.name], strict=True):
            if dim.HasField("dim_param"):
                dim.dim_param = str(size)
    for noted in (*model.graph.initializer, model.graph, model):
        del noted.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.name = graph.name
    return model


if __name__ == "__main__":
    for path in export_pixel_graphs(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED):
        print(f"{path} {path.stat().st_size} bytes")
