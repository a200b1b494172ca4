"""The VAE with E4M3 convolutions, emulated: what is quantised, how it rounds, what is calibrated."""

import pytest
import torch
from tests.networks import loud_weights, normal

from vr_trt.export.causal import Stream
from vr_trt.export.config import VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8 import E4M3_MAX, to_e4m3
from vr_trt.export.fp8_vae import fp8_layers, observe, quantise_coder
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import VIDEO

CONFIG = VaeConfig(channels=(8, 16, 32, 32), encoder_resnets=1, decoder_resnets=1, groups=4)
WEIGHTS = loud_weights(CONFIG)
DECODER = fold_decoder(CONFIG, WEIGHTS, VIDEO)
LATENTS = normal(1, 16, 2, 2, 3)


def test_the_activated_convolutions_that_suit_are_quantised() -> None:
    names = set(fp8_layers(DECODER))
    assert "up_blocks.0.resnets.0.conv1" in names and "mid_block.resnets.1.conv2" in names
    assert "up_blocks.3.resnets.0.conv1" not in names  # to 8 channels
    assert not any("conv_in" in n or "conv_out" in n or "shortcut" in n for n in names)
    assert not any("upsamplers" in n or "attentions" in n for n in names)
    assert set(fp8_layers(fold_encoder(CONFIG, WEIGHTS, VIDEO)))


def test_largest_magnitudes_are_those_of_the_inputs() -> None:
    name = "mid_block.resnets.0.conv1"
    seen: list[float] = []
    layer = fp8_layers(DECODER)[name]
    hook = layer.register_forward_pre_hook(lambda m, a: seen.append(float(a[0].abs().max())))
    amax = observe(DECODER, [LATENTS, 3 * LATENTS])
    hook.remove()
    assert set(amax) == set(fp8_layers(DECODER)) and amax[name] == max(seen)
    assert not layer._forward_pre_hooks  # nothing is left behind


def test_a_quantised_network_is_near_and_no_weight_of_the_wide_one_changes() -> None:
    before = {name: x.clone() for name, x in DECODER.state_dict().items()}
    wanted = DECODER(LATENTS, Stream())
    narrow = quantise_coder(DECODER, observe(DECODER, [LATENTS]))
    error = relative_rms(narrow(LATENTS, Stream()), wanted)
    assert 1e-3 < error < 0.2  # three bits of fraction, averaged over many
    assert all(torch.equal(x, before[name]) for name, x in DECODER.state_dict().items())
    assert torch.equal(DECODER(LATENTS, Stream()), wanted)


def test_the_state_is_what_the_layer_saw() -> None:
    """Rounded once: a step reads the past as the start rounded it."""
    amax = observe(DECODER, [LATENTS])
    narrow = quantise_coder(DECODER, amax)
    stream = Stream()
    narrow(LATENTS, stream)
    name = "mid_block.resnets.0.conv1"
    step = amax[name] / E4M3_MAX
    state = stream.next[name] / step
    torch.testing.assert_close(to_e4m3(state).float(), state, rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_a_wrong_calibration_is_worse(factor: float) -> None:
    wanted, amax = DECODER(LATENTS, Stream()), observe(DECODER, [LATENTS])
    errors = [
        relative_rms(quantise_coder(DECODER, table)(LATENTS, Stream()), wanted)
        for table in (amax, {name: largest * factor**4 for name, largest in amax.items()})
    ]
    assert errors[0] < errors[1]
