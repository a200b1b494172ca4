"""The networks in numbers are the networks in PyTorch: parameters and states, one for one."""

import pytest
import torch

from vr_trt.engines.network_layers import Call, Verb, generator_parameters, vae_layers
from vr_trt.export.config import (
    GENERATOR_3B,
    GENERATOR_7B,
    GENERATOR_NANO,
    VAE,
    VAE_NANO,
    GeneratorConfig,
    VaeConfig,
)
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.stages import StageShape, coder_stages
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder

SHAPE = StageShape(height=64, width=128, latents=6)


@pytest.mark.parametrize(("config", "cut"), [(VAE, True), (VAE_NANO, False), (VAE_NANO, True)])
@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_states(config: VaeConfig, verb: Verb, cut: bool) -> None:
    coder = Encoder if verb == "encode" else Decoder
    with torch.device("meta"):
        for stage in coder_stages(
            lambda: coder(config, VIDEO), lambda: coder(config, IMAGE), SHAPE, cut=cut
        ):
            if not stage.name.endswith("step"):
                continue
            expected = sum(state.numel() for state in stage.arguments[1])
            layers = vae_layers(config, verb, "step")
            if cut:
                layers = [layer for layer in layers if layer.fine == ("_fine_" in stage.name)]
            assert expected and expected == sum(
                layer.state * (64 * 128 // layer.scale**2) for layer in layers
            )


@pytest.mark.parametrize("config", [VAE, VAE_NANO])
def test_weights_of_the_vae(config: VaeConfig) -> None:
    """A decoder's start and step have some weights each that the other has not."""
    with torch.device("meta"):
        encoder = sum(p.numel() for p in Encoder(config, VIDEO).parameters())
        pictures = [coder(config, IMAGE) for coder in (Encoder, Decoder)]
        decoder = Decoder(config, VIDEO)
    assert _parameters(config, "encode", "start") == _parameters(config, "encode", "step")
    assert _parameters(config, "encode", "step") == encoder
    verbs: tuple[Verb, ...] = ("encode", "decode")
    for verb, picture in zip(verbs, pictures, strict=True):
        assert _parameters(config, verb, "image") == sum(p.numel() for p in picture.parameters())
    every = sum(p.numel() for p in decoder.parameters())
    of_start = sum(p.numel() for n, p in decoder.named_parameters() if ".first." in n)
    of_start += sum(p.numel() for n, p in decoder.named_parameters() if ".second." in n)
    first_step = sum(
        p.numel()
        for n, p in decoder.named_parameters()
        if n.startswith("up_blocks.0.up") and ".step." in n
    )
    assert _parameters(config, "decode", "step") == every - of_start
    assert _parameters(config, "decode", "start") == every - first_step


def _parameters(config: VaeConfig, verb: Verb, call: Call) -> int:
    return sum(layer.parameters for layer in vae_layers(config, verb, call))


@pytest.mark.parametrize("config", [GENERATOR_3B, GENERATOR_7B, GENERATOR_NANO])
def test_weights_of_the_generator(config: GeneratorConfig) -> None:
    with torch.device("meta"):
        folded = FoldedGenerator(config, 58)
    tensors = (*folded.parameters(), *folded.buffers())
    assert generator_parameters(config, 58) == sum(tensor.numel() for tensor in tensors)
