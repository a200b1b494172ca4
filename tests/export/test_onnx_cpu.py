"""What makes graphs quick on ONNX Runtime's CPU: convolutions over two axes where one frame comes out."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vr_trt.export.config import VaeConfig
from vr_trt.export.onnx_cpu import convolve_single_frames
from vr_trt.export.onnx_graph import trace
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.stages import StageShape, coder_stages
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder
from vr_trt.runtime.model import EMBEDDED

SMALL = VaeConfig(
    channels=(4, 4, 8, 8), encoder_resnets=1, decoder_resnets=1, groups=2, latent_channels=4
)
SHAPE = StageShape(height=32, width=48, latents=3)


def kernels(path: Path) -> list[int]:
    """Axes of every convolution's kernel."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    sizes = [a.ints for n in nodes if n.op_type == "Conv" for a in n.attribute]
    return [len(ints) for ints in sizes if len(ints) in (2, 3)]


@pytest.mark.parametrize("name", ["decode_fine_step", "encode_coarse_step"])
def test_the_result_is_the_same(tmp_path: Path, name: str) -> None:
    """Of a stage of one frame, and of one where only some convolutions give one."""
    coder = Encoder if name.startswith("encode") else Decoder
    torch.manual_seed(0)
    stages = coder_stages(lambda: coder(SMALL, VIDEO), lambda: coder(SMALL, IMAGE), SHAPE, cut=True)
    stage = next(stage for stage in stages if stage.name == name)
    results = []
    for replaced in (False, True):
        model = trace(stage)
        if replaced:
            convolve_single_frames(model)
        folder = tmp_path / str(replaced)
        folder.mkdir()
        with SharedWeights(folder / "weights.bin", half=False) as weights:
            weights.save(model, folder / "stage.onnx")
        session = onnxruntime.InferenceSession(folder / "stage.onnx")
        random = np.random.default_rng(1)
        inputs = {
            node.name: random.standard_normal(node.shape, dtype=np.float32)
            for node in session.get_inputs()
        }
        results.append(session.run(None, inputs))
        assert [node.name for node in session.get_outputs()] == list(stage.outputs)
    plain, ours = results
    assert len(plain) == len(ours) > 1
    for one, other in zip(plain, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_the_fine_halves_that_ship_have_no_convolution_over_frames() -> None:
    for verb in ("encode", "decode"):
        for call in ("start", "step"):
            found = kernels(EMBEDDED / "nano" / f"{verb}_fine_{call}.onnx")
            assert found and 3 not in found
    several = [
        kernels(EMBEDDED / "nano" / f"{verb}_coarse_step.onnx") for verb in ("encode", "decode")
    ]
    assert all(3 in found for found in several)  # they take several frames at once
