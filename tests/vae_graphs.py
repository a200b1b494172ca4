"""A small VAE's graphs, exported whole, and the specs of their stages for the triton backend."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tests.engine_graphs import make_spec
from tests.networks import loud_weights
from tests.tiny_model import TINY_3B, TinyModel

from vr_trt.engines.onnx_file import read_onnx
from vr_trt.engines.spec import EngineSpec
from vr_trt.export.config import VaeConfig
from vr_trt.export.export_model import ExportPlan, Precision, export_model
from vr_trt.export.stages import StageShape

# One resnet, widths that change at every level, and one that fills no 16-byte word.
CONFIG = VaeConfig(channels=(8, 12, 16, 24), encoder_resnets=1, decoder_resnets=1, groups=4)
SIZE = (16, 32)  # rows and columns of pixels


def export_vae(folder: Path, precision: Precision) -> Path:
    """Write the graphs of a VAE of `CONFIG` with `loud_weights` to `folder`."""
    weights = folder.with_name("weights")
    weights.mkdir()
    files = {name: weights / f"{name}.safetensors" for name in ("generator", "vae")}
    save_file({k: v.contiguous() for k, v in loud_weights(CONFIG).items()}, files["vae"])
    save_file({}, files["generator"])
    model = TinyModel(
        name="tiny", generator=TINY_3B, vae=CONFIG,
        generator_file=files["generator"], vae_file=files["vae"],
    )  # fmt: skip
    shape = StageShape(height=SIZE[0], width=SIZE[1], latents=2)
    export_model(
        ExportPlan(model=model, precision=precision, shape=shape, networks=("encoder", "decoder")),
        folder,
    )
    return folder


def stage_spec(graph: Path, precision: str, **changes: Any) -> EngineSpec:
    """What an engine of `graph`, called as its stage, is built by."""
    inputs = read_onnx(graph).inputs
    shapes = {name: sizes for name, sizes in inputs.items() if sizes}
    fields = {
        "model": "tiny", "stage": graph.stem, "shapes": shapes, "precision": precision,
        "backend": "triton", "targets": (90,), "flags": {},
    }  # fmt: skip
    return make_spec(**fields | changes)
