"""What TensorRT-RTX says each stage's engine needs on the card, at every profile.

    python -m vr_trt.bench.engine_memory [--out FILE] [--only TEXT]

No GPU is needed and no weights: stages are traced from networks of the true shapes, filled at
random, and built ahead of time; the library's log then names the bytes of activations and of
weights. A generator's activations are one block's, since blocks follow each other, so it is built
with three of its blocks. `engines/memory_law.py` is held to the result by a test.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vr_trt.bench.machine import describe
from vr_trt.bench.whole_file import write_json
from vr_trt.engines.build_process import build_in_process
from vr_trt.engines.build_tensorrt_rtx import BUILDER
from vr_trt.engines.cache import Canvas
from vr_trt.engines.onnx_file import read_onnx
from vr_trt.engines.profiles import find_profile
from vr_trt.engines.spec import EngineSpec
from vr_trt.export.config import GENERATOR_3B, GENERATOR_7B, VAE
from vr_trt.export.export_model import DTYPES, Precision
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.onnx_graph import Trace, trace
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.stages import StageShape, coder_stages, generator_stages
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder
from vr_trt.runtime.canvas import canvas

GENERATORS = {"seedvr2-3b": GENERATOR_3B, "seedvr2-7b": GENERATOR_7B}
BLOCKS = 3  # plain windows, shifted, and the last, which differs
TEXT_TOKENS = 58
SMALL = 0.02  # of the random weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One network at one size."""

    network: str  # encoder, decoder, seedvr2-3b, seedvr2-7b
    profile: str
    canvas: Canvas
    precision: Precision = "fp16"
    cut: bool = False
    sm: int = 89

    def __str__(self) -> str:
        cut = " cut" if self.cut else ""
        return f"{self.network} {self.profile} {self.precision}{cut} sm_{self.sm}"


def cases() -> Iterator[Case]:
    """What the law is held to: every network small, middling and large, and the other chip."""
    for profile in ("360p", "720p", "1080p"):
        for network in ("decoder", "encoder"):
            yield _case(network, profile)
            yield _case(network, profile, cut=True)
        yield _case("seedvr2-3b", profile, precision="bf16")
        yield _case("seedvr2-7b", profile, precision="bf16")
    yield _case("decoder", "720p", cut=True, sm=120)
    yield _case("seedvr2-3b", "720p", precision="bf16", sm=120)
    yield _case("seedvr2-3b", "720p", precision="fp16")
    yield _case("decoder", "1440p", cut=True)
    yield _case("encoder", "1440p", cut=True)
    yield _case("decoder", "720p", cut=True, precision="bf16")


def _case(network: str, profile: str, **changes: Any) -> Case:
    row = find_profile(profile)
    sizes = canvas(16, 9, row.short_side)
    frame = Canvas(
        width=sizes.padded_w,
        height=sizes.padded_h,
        latents=row.window_latents,
        step=row.latents_per_step,
    )
    return Case(network=network, profile=profile, canvas=frame, **changes)


def stages(case: Case) -> Iterator[Trace]:
    """The stages of `case`, their weights random."""
    shape = StageShape(
        height=case.canvas.height,
        width=case.canvas.width,
        latents=case.canvas.latents,
        step=case.canvas.step,
    )
    dtype = DTYPES[case.precision]
    if case.network in GENERATORS:
        config = replace(GENERATORS[case.network], layers=BLOCKS, shared_from=1)
        yield from generator_stages(_filled(FoldedGenerator(config, TEXT_TOKENS), dtype), shape)
        return
    coder = Encoder if case.network == "encoder" else Decoder
    yield from coder_stages(
        lambda: _filled(coder(VAE, VIDEO), dtype),
        lambda: _filled(coder(VAE, IMAGE), dtype),
        shape,
        cut=case.cut,
    )


def _filled(network: Any, dtype: torch.dtype) -> Any:
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            nn.init.normal_(tensor.data, std=SMALL)
    return network.to(dtype)


def measure(case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each stage: what the library said of its plan."""
    with SharedWeights(folder / "weights.bin") as weights:
        for stage in stages(case):
            path = folder / f"{stage.name}.onnx"
            weights.save(trace(stage), path)
            yield {
                "network": case.network,
                "stage": stage.name,
                "profile": case.profile,
                "width": case.canvas.width,
                "height": case.canvas.height,
                "latents": case.canvas.latents,
                "precision": case.precision,
                "sm": case.sm,
            } | _built(case, stage.name, path, folder)


def _built(case: Case, stage: str, path: Path, folder: Path) -> dict[str, Any]:
    graph = read_onnx(path)
    spec = EngineSpec(
        model=case.network,
        weights={},
        stage=stage,
        onnx=graph.sha256,
        shapes={n: sizes for n, sizes in graph.inputs.items() if sizes},
        precision=case.precision,
        backend=BUILDER.name,
        backend_version=BUILDER.version(),
        targets=(case.sm,),
        flags=BUILDER.flags({}),
        recipe=BUILDER.recipe,
    )
    out = folder / "plan"
    out.mkdir()
    facts = build_in_process(spec, path, out, lambda moment: None).report.facts
    shutil.rmtree(out)  # nobody runs it
    return {
        "device_bytes": facts["device_bytes"],
        "weight_bytes": facts["weight_bytes"],
        "graph_weight_bytes": graph.weight_bytes,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON; rows that are there already are kept")
    parser.add_argument("--only", default="", help="one case, as `decoder 720p fp16 cut sm_89`")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    if given.out and given.out.exists():
        rows = json.loads(given.out.read_text())["rows"]
    for case in cases():
        if given.only not in ("", str(case)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(case, Path(folder)):
                print(json.dumps(row), flush=True)
                rows = [old for old in rows if _key(old) != _key(row)] + [row]
        if given.out:
            result = {"machine": describe(), "command": "python -m vr_trt.bench.engine_memory"}
            write_json(given.out, result | {"rows": rows})


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in row.items() if not name.endswith("bytes"))


if __name__ == "__main__":
    main()
