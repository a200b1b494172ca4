"""The model in the package: what it was exported from, and that it computes the same."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from vr_trt.export.diffusion import Sampling, condition, sample
from vr_trt.export.generator import Generator
from vr_trt.export.golden import relative_rms
from vr_trt.export.models import find_model_files
from vr_trt.export.nano.embed import SHIPPED
from vr_trt.export.vae import VideoVae, split_moments
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.model import Model
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import DecodeStream, EncodeStream

STORED_IN_HALF = 1e-2  # the graphs' weights are folded, then stored in fp16
MEGABYTES = 8
SIZES = [(48, 80), (96, 64)]


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    files = find_model_files("nano")
    network = VideoVae(files.vae)
    network.load_state_dict(dict(files.load_vae()))
    return network.float().requires_grad_(False)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_it_is_exported_from_the_weights_in_the_repository() -> None:
    files = find_model_files("nano")
    recorded = json.loads((SHIPPED / "manifest.json").read_text())["weights"]
    for path in (files.generator_file, files.vae_file):
        assert recorded[path.name] == hashlib.sha256(path.read_bytes()).hexdigest(), (
            f"{path.name} has changed: run python -m vr_trt.export.nano.embed"
        )


def test_its_weights_are_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.bin")) <= MEGABYTES * 1e6


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_streamed_vae_is_the_whole_clip_of_pytorch(
    vae: VideoVae, height: int, width: int
) -> None:
    clip = normal(1, 1, 3, 13, height, width).clip(-1, 1)
    encode, decode = (
        EncodeStream(Model(SHIPPED), StatePool()),
        DecodeStream(Model(SHIPPED), StatePool()),
    )
    parts = np.split(clip, [5, 9], axis=2)
    latent = np.concatenate([encode.push(part) for part in parts], axis=2)
    whole = split_moments(vae.encode(torch.from_numpy(clip)))[0] * vae.config.scaling
    assert relative_rms(torch.from_numpy(latent), whole) <= STORED_IN_HALF
    parts = np.split(latent, [2, 3], axis=2)
    frames = np.concatenate([decode.push(part) for part in parts], axis=2)
    whole = vae.decode(torch.from_numpy(latent) / vae.config.scaling)
    assert relative_rms(torch.from_numpy(frames), whole) <= STORED_IN_HALF


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_is_that_of_pytorch(vae: VideoVae, height: int, width: int) -> None:
    picture = normal(2, 1, 3, 1, height, width).clip(-1, 1)
    latent = EncodeStream(Model(SHIPPED), StatePool()).image(picture)
    whole = split_moments(vae.encode(torch.from_numpy(picture)))[0] * vae.config.scaling
    assert relative_rms(torch.from_numpy(latent), whole) <= STORED_IN_HALF
    decoded = DecodeStream(Model(SHIPPED), StatePool()).image(latent)
    whole = vae.decode(torch.from_numpy(latent) / vae.config.scaling)
    assert relative_rms(torch.from_numpy(decoded), whole) <= STORED_IN_HALF


def test_the_generator_is_that_of_pytorch() -> None:
    files = find_model_files("nano")
    network = Generator(files.generator)
    network.load_state_dict(dict(files.load_generator()))
    network.float().requires_grad_(False)
    channels = files.generator.latent_channels
    latent = normal(3, 1, channels, 5, 46, 60)  # several windows, ragged ones among them
    noise = window_noise(7, 0, 5, (46, 60), channels)
    ours = GeneratorStage(Model(SHIPPED), 7).restore(0, latent)

    def channel_last(x: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(x)[0].permute(1, 2, 3, 0)

    text = files.load_text(), None
    given = condition(channel_last(latent), None, 0.0)
    whole = sample(network, channel_last(noise), given, text, Sampling())
    assert relative_rms(channel_last(ours), whole) <= STORED_IN_HALF


def test_frames_are_attended_block_by_block() -> None:
    for name in ("encode_coarse_step", "decode_coarse_step", "encode_image"):
        nodes = onnx.load(SHIPPED / f"{name}.onnx", load_external_data=False).graph.node
        kinds = [node.op_type for node in nodes]
        assert kinds.count("MultiHeadAttention") == 1 and "Attention" not in kinds, name
