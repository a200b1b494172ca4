"""Small graphs, exported folders of them, and a builder that misbehaves, for tests of engines."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vr_trt.engines.spec import EngineSpec

SIZE = (64, 32)  # width and height
KINDS = {"fp32": (np.float32, TensorProto.FLOAT), "fp16": (np.float16, TensorProto.FLOAT16)}


def make_spec(**changes: Any) -> EngineSpec:
    """A spec for which nothing need exist."""
    fields: dict[str, Any] = {
        "model": "tiny",
        "weights": {"weights.safetensors": "ab" * 32},
        "stage": "generator",
        "onnx": "cd" * 32,
        "shapes": {"noise": (1, 16, 6, 4, 8)},
        "precision": "fp16",
        "backend": "tensorrt-rtx",
        "backend_version": "1.7.1",
        "targets": (89, 120),
        "flags": {"weight_streaming": "no"},
        "recipe": 1,
    }
    return EngineSpec(**{**fields, **changes})


def make_graphs(
    folder: Path, precision: str = "fp32", size: tuple[int, int] = SIZE, seed: int = 0
) -> Path:
    """An exported model's folder of two stages, each one matrix product over the latent's columns."""
    folder.mkdir(parents=True)
    kind, code = KINDS[precision]
    width, height = size
    h, w = height // 8, width // 8
    weights = np.random.default_rng(seed).standard_normal((w, w)).astype(kind)
    for stage, latents in (("generator", 6), ("generator_image", 1)):
        sizes = [1, 16, latents, h, w]
        save_graph(folder / f"{stage}.onnx", weights, sizes, code)
    stages = {stage: f"{stage}.onnx" for stage in ("generator", "generator_image")}
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    manifest = {
        "model": "tiny",
        "precision": precision,
        "profile": "360p",
        "shape": {"width": width, "height": height, "latents": 6, "step": 1},
        "stages": stages,
        "weights": {"weights.safetensors": f"{seed:064x}"},
        "sha256": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def save_graph(path: Path, weights: NDArray[Any], sizes: list[int], code: int) -> None:
    """`restored = noise @ weights + latent`, the weights in `weights.bin` beside it."""
    nodes = [
        helper.make_node("MatMul", ["noise", "weights"], ["product"], name="product"),
        helper.make_node("Add", ["product", "latent"], ["restored"], name="sum"),
    ]
    inputs = [helper.make_tensor_value_info(name, code, sizes) for name in ("noise", "latent")]
    outputs = [helper.make_tensor_value_info("restored", code, sizes)]
    tensor = numpy_helper.from_array(weights, "weights")
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    data = path.with_name("weights.bin")
    data.unlink(missing_ok=True)  # onnx appends
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=0)


MISBEHAVING = """
import os, signal, sys, time
from vr_trt.engines.builder import BuildReport
from vr_trt.errors import ModelError


class Misbehaving:
    name = "triton"
    targets = (89,)
    default_targets = (89,)
    recipe = 1
    cuts = True

    def version(self): return "0"
    def available(self): return None
    def check(self, precision, sm): pass
    def flags(self, options): return dict(options)
    def estimate_memory(self, spec, size): return 0

    def build(self, spec, onnx_path, out_path, progress):
        what = spec.flags["do"]
        progress(f"{what} {os.getpid()}")
        print("about to", what, file=sys.stderr, flush=True)
        if what == "abort":
            os.abort()
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "refuse":
            raise ModelError("no such operator")
        if what == "fill":
            out_path.write_bytes(bytes(64 << 20))
        for _ in range(int(spec.flags.get("parts", "0"))):
            with out_path.open("ab") as file:
                file.write(b"x" * 1000)
            time.sleep(0.01)
        if what == "hang":
            time.sleep(600)
        out_path.write_bytes(b"plan")
        return BuildReport(seconds={"build": 0.0}, facts={"made": "by a test"}, notes=["heard"])


BUILDER = Misbehaving()
"""
PATCH = """
import vr_trt.engines.builder as builder
builder._MODULES["triton"] = "misbehaving_builder"
"""


def add_misbehaving_builder(folder: Path) -> Path:
    """A folder that, on PYTHONPATH, puts a backend called triton into every process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "misbehaving_builder.py").write_text(MISBEHAVING)
    (folder / "sitecustomize.py").write_text(PATCH)
    return folder
