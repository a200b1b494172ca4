"""Engines of the pixel graphs, each for one film's sizes: found in the cache, or built in a moment.

TensorRT-RTX took 0.1 and 0.3 s for the way in and out at 1080p; TensorRT tries kernels on its GPU
and has not been run by us.
"""

from collections.abc import Mapping
from pathlib import Path

from vr_trt.engines.build_process import build_in_process
from vr_trt.engines.builder import find_builder
from vr_trt.engines.cache import About, Canvas, Engine, EngineCache, seal
from vr_trt.engines.spec import EngineSpec, Sizes
from vr_trt.errors import ModelError
from vr_trt.export.weights_hashes import hash_file

MODEL = "pixels"


def pixel_spec(graph: Path, shapes: Mapping[str, Sizes], backend: str, sm: int) -> EngineSpec:
    """What decides the plan of `graph`, a file of engines/pixels, on a chip; ModelError."""
    builder = find_builder(backend)
    if reason := builder.available():
        raise ModelError(reason)
    return EngineSpec(
        model=MODEL,
        weights={},
        stage=graph.stem,
        onnx=hash_file(graph),
        shapes={name: tuple(sizes) for name, sizes in shapes.items()},
        precision="fp32",
        backend=backend,
        backend_version=builder.version(),
        targets=(sm,),
        flags=builder.flags({}),
        recipe=builder.recipe,
    )


def pixel_engine(graph: Path, spec: EngineSpec) -> Engine:
    """The engine of `spec`, built first if it is not there; ModelError where that fails."""
    cache = EngineCache()
    store = cache.store
    if engine := cache.find(spec):
        engine.mark_used()
        return engine
    with store.lock(spec.folder_name):
        if engine := cache.find(spec):  # by another process, meanwhile
            return engine
        with store.publishing(spec.folder_name) as folder:
            built = build_in_process(spec, graph, folder, lambda moment: None)
            seal(folder, spec, _about(spec, built.seconds))
    return Engine.read(store.path(spec.folder_name))


def _about(spec: EngineSpec, seconds: float) -> About:
    sizes = spec.shapes["x" if "x" in spec.shapes else "y"]
    canvas = Canvas(width=sizes[-1], height=sizes[-2], latents=0, step=0)
    return About(source=MODEL, profile="", canvas=canvas, seconds={"all": seconds})
