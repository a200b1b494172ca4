"""A model of a few kilobytes, exported and run as the published ones are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tests.networks import loud_weights, make_generator, make_vae, normal
from torch import Tensor

from vr_trt.export import export_model
from vr_trt.export.config import (
    GeneratorConfig,
    VaeConfig,
    generator_3b_style,
    generator_7b_style,
)
from vr_trt.export.export_model import ExportPlan
from vr_trt.export.models import ModelFiles
from vr_trt.export.onnx_graph import Trace
from vr_trt.export.stages import generator_stages
from vr_trt.export.vae import split_moments
from vr_trt.kernels.windows import any_size_tables

TINY_3B = generator_3b_style(width=16, heads=3, head_width=8, layers=3, text_width=6, shared_from=1)
TINY_7B = generator_7b_style(width=16, heads=2, head_width=12, layers=2, text_width=6)
TINY_VAE = VaeConfig(
    channels=(4, 6, 8, 8), encoder_resnets=1, decoder_resnets=1, groups=2, scaling=0.7
)
TEXT = normal(3, 6)
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyModel(ModelFiles):
    """Its prompt is not the published one."""

    def load_text(self) -> Tensor:
        return TEXT


def make_tiny_model(folder: Path, generator: GeneratorConfig = TINY_3B) -> TinyModel:
    """Write the weights to `folder`."""
    files = folder / "generator.safetensors", folder / "vae.safetensors"
    for path, weights in zip(files, (loud_weights(generator), loud_weights(TINY_VAE)), strict=True):
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
    return TinyModel(
        name="tiny",
        generator=generator,
        vae=TINY_VAE,
        generator_file=files[0],
        vae_file=files[1],
    )


def export_generator(plan: ExportPlan, folder: Path) -> Path:
    """Export `plan`, of the generator alone, without the graph of a picture; the manifest's path."""

    def first(*given: Any) -> Iterator[Trace]:
        return islice(generator_stages(*given), 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_model, "generator_stages", first)
        return export_model.export_model(replace(plan, networks=["generator"]), folder)


class Exported:
    """The graphs of an export, run by ONNX Runtime on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, stage: str) -> onnx.ModelProto:
        """The graph alone."""
        return onnx.load(self.folder / f"{stage}.onnx", load_external_data=False)

    def run(self, stage: str, feeds: dict[str, Array]) -> dict[str, Array]:
        """Outputs by name; floats go in as the graph wants them and come out as fp32."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.folder / f"{stage}.onnx", options, providers=["CPUExecutionProvider"]
        )
        half = {node.name for node in session.get_inputs() if node.type == "tensor(float16)"}
        given = {k: v.astype(np.float16) if k in half else v for k, v in feeds.items()}
        names = [node.name for node in session.get_outputs()]
        outputs = session.run(names, given)
        return {k: v.astype(np.float32) for k, v in zip(names, outputs, strict=True)}

    def stream(self, verb: str, x: Tensor, step: int) -> Tensor:
        """`encode` or `decode` a clip: start, then steps, states handed on."""
        came, result = ("x", "latent") if verb == "encode" else ("latent", "x")
        first, more = (5, 4 * step) if verb == "encode" else (2, step)
        parts = [x[:, :, :first], *x[:, :, first:].split(more, 2)]
        out: list[Array] = []
        states: dict[str, Array] = {}
        for i, part in enumerate(parts):
            feeds = {came: part.numpy(), **states}
            outputs = self.run(f"{verb}_{'step' if i else 'start'}", feeds)
            out.append(outputs.pop(result))
            states = {f"state.{name.removeprefix('next.')}": v for name, v in outputs.items()}
        return torch.from_numpy(np.concatenate(out, 2))

    def image(self, verb: str, x: Tensor) -> Tensor:
        """`encode` or `decode` one picture."""
        came, result = ("x", "latent") if verb == "encode" else ("latent", "x")
        return torch.from_numpy(self.run(f"{verb}_image", {came: x.numpy()})[result])

    def generate(
        self, noise: Tensor, latent: Tensor, *, tables: GeneratorConfig | None = None,
        stage: str = "generator",
    ) -> Tensor:  # fmt: skip
        """The restored latent; of any size with the `tables` of a configuration."""
        feeds: dict[str, Array] = {"noise": noise.numpy(), "latent": latent.numpy()}
        if tables:
            grid = (noise.shape[2], noise.shape[3] // 2, noise.shape[4] // 2)
            feeds |= any_size_tables(grid, len(TEXT), tables.head_width, tables.rope)
        return torch.from_numpy(self.run(stage, feeds)["restored"])


class Plain:
    """What the unfolded networks in PyTorch make of the same."""

    def __init__(self, generator: GeneratorConfig = TINY_3B) -> None:
        self.generator = make_generator(generator, loud_weights(generator))
        self.vae = make_vae(TINY_VAE, loud_weights(TINY_VAE))

    def encode(self, x: Tensor) -> Tensor:
        return split_moments(self.vae.encode(x))[0] * TINY_VAE.scaling

    def decode(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent / TINY_VAE.scaling)

    def velocity(self, noise: Tensor, latent: Tensor) -> Tensor:
        """v [1, 16, T, h, w]; the restored latent is noise - v."""
        video = torch.cat([noise, latent, torch.ones_like(noise[:, :1])], 1)[0].permute(1, 2, 3, 0)
        v = self.generator(video, TEXT, torch.tensor(1000.0))
        return v.permute(3, 0, 1, 2)[None]
