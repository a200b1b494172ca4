"""What TensorRT-RTX makes of the stages: kernels and bytes by kind. Needs no GPU.

    python -m vr_trt.bench.fusions [--precision fp16] [--sm 89]

The VAE's steps have the published widths, the generators the published head width with five heads
and four blocks, all from random weights; pictures are small. Bytes are those that kernels read and
write, weights apart: the convolutions' and products' own are listed as stubs.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from vr_trt.engines.build_tensorrt_rtx import BUILDER
from vr_trt.engines.onnx_file import read_onnx
from vr_trt.engines.plan_report import PlanReport, report_plan
from vr_trt.engines.spec import EngineSpec
from vr_trt.export.config import VAE, generator_3b_style, generator_7b_style
from vr_trt.export.export_model import DTYPES
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.onnx_graph import Trace, trace
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.random_weights import random_tensors
from vr_trt.export.stages import StageShape, coder_stages, generator_stages
from vr_trt.export.vae import IMAGE, VIDEO

CODER_SHAPE = StageShape(height=64, width=96, latents=3)
WINDOWS_SHAPE = StageShape(height=320, width=384, latents=3)  # four shapes of windows a block
TEXT_TOKENS, TEXT_WIDTH, HEADS, HEAD_WIDTH, LAYERS = 58, 64, 5, 128, 4


def stages(dtype: torch.dtype) -> Iterator[tuple[str, Trace]]:
    """The stages to look into, by name."""
    weights = dict(random_tensors(VAE))
    for verb, fold in (("encode", fold_encoder), ("decode", fold_decoder)):
        video = partial(fold, VAE, weights, VIDEO, dtype)
        made = coder_stages(video, partial(fold, VAE, weights, IMAGE, dtype), CODER_SHAPE)
        yield f"{verb}_step", next(stage for stage in made if stage.name == f"{verb}_step")
    sizes = {"heads": HEADS, "head_width": HEAD_WIDTH, "layers": LAYERS, "text_width": TEXT_WIDTH}
    width = HEADS * HEAD_WIDTH
    for name, config in (
        ("generator, 3B's kind", generator_3b_style(width=width, shared_from=2, **sizes)),
        ("generator, 7B's kind", generator_7b_style(width=width, **sizes)),
    ):
        text = torch.zeros(TEXT_TOKENS, TEXT_WIDTH)
        folded = fold_generator(config, dict(random_tensors(config)), text, dtype=dtype)
        yield name, next(generator_stages(folded, WINDOWS_SHAPE))


def build(stage: Trace, folder: Path, precision: str, sm: int) -> PlanReport:
    """Export and build one stage in `folder`."""
    graph, plan = folder / f"{stage.name}.onnx", folder / "plan"
    with SharedWeights(folder / "weights.bin") as weights:
        weights.save(trace(stage), graph)
    spec = EngineSpec(
        model="random",
        weights={},
        stage=stage.name,
        onnx="",
        shapes={n: s for n, s in read_onnx(graph).inputs.items() if s},
        precision=precision,
        backend=BUILDER.name,
        backend_version=BUILDER.version(),
        targets=(sm,),
        flags=BUILDER.flags({}),
        recipe=BUILDER.recipe,
    )
    BUILDER.build(spec, graph, plan, lambda moment: None)
    return report_plan(plan)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("fp16", "bf16"), default="fp16")
    parser.add_argument("--sm", type=int, default=89)
    given = parser.parse_args()
    print("| stage | kernels | their MB | of these only move | MB | clear counters | stubs | MB |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, stage in stages(DTYPES[given.precision]):
        with tempfile.TemporaryDirectory() as folder:
            report = build(stage, Path(folder), given.precision, given.sm)
        kinds, moved = report.kinds, report.traffic
        stubs = sum(count for kind, count in moved.items() if kind.startswith("stub"))
        megabytes = (sum(moved.values()) - stubs, moved.get("movement only", 0), stubs)
        ours, movers, left = (f"{value / 1e6:.0f}" for value in megabytes)
        print(
            f"| {name} | {report.kernels} | {ours} | {kinds.get('movement only', 0)} | {movers} | "
            f"{kinds.get('counters cleared', 0)} | {report.stubs} | {left} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
