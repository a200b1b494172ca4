"""Fold the VAE for deployment, exactly: scaling, sub-pixel upsampling, one picture's kernels.

What lies between norms is scaled, too, by the form's `stream`: in range for fp16, and with the
epsilon that builders take. Computed in fp32 and cast at the end. Source: design §3, network spec §6.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vr_trt.export import sub_pixel
from vr_trt.export.checkpoint import narrowed
from vr_trt.export.config import VaeConfig
from vr_trt.export.sub_pixel import sub_pixel_weights
from vr_trt.export.vae import Decoder, Encoder, Form

Weights = Mapping[str, Tensor]
UPSCALE = ".upscale_conv.weight"
# What takes a norm's output, or the network's input, to what the next norm takes; and the biases of
# what stays between norms.
_ENTERS_STREAM = re.compile(
    r"(conv_in|\.conv[12]|\.to_out\.0)\.(weight|bias)$|\.(conv_shortcut|downsamplers\.0\.conv)\.bias$"
)


def fold_encoder(
    config: VaeConfig, weights: Weights, form: Form, dtype: torch.dtype = torch.float32
) -> Encoder:
    """The deployed encoder, of video or of one picture, from the checkpoint's `weights`."""
    with torch.device("meta"):
        encoder = Encoder(config, form)
    _fill(encoder, "encoder.", _folded(config, weights, form, "encoder."), dtype)
    return encoder


def fold_decoder(
    config: VaeConfig, weights: Weights, form: Form, dtype: torch.dtype = torch.float32
) -> Decoder:
    """The deployed decoder, of video or of one picture, from the checkpoint's `weights`."""
    with torch.device("meta"):
        decoder = Decoder(config, form)
    _fill(decoder, "decoder.", _folded(config, weights, form, "decoder."), dtype)
    return decoder


def _fill(
    network: nn.Module, prefix: str, folded: Iterator[tuple[str, Tensor]], dtype: torch.dtype
) -> None:
    state = {name.removeprefix(prefix): narrowed(name, x, dtype) for name, x in folded}
    for name, module in network.named_modules():
        if isinstance(module, sub_pixel.SubPixelConv):  # it may do without its bias channel
            module.weight = nn.Parameter(torch.empty_like(state[f"{name}.weight"], device="meta"))
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def _folded(
    config: VaeConfig, weights: Weights, form: Form, prefix: str
) -> Iterator[tuple[str, Tensor]]:
    mean = config.latent_channels
    for name in weights:
        if not name.startswith(prefix):
            continue
        if ".upsamplers." in name:
            if name.endswith(UPSCALE):
                yield from _upsample(weights, name.removesuffix(UPSCALE), form)
            continue
        tensor = weights[name].float()
        if form.taps == 1 and tensor.ndim == 5:  # every tap sees the same frame
            tensor = tensor.sum(2, keepdim=True)
        if name.startswith("encoder.conv_out."):
            tensor = tensor[:mean] * config.scaling
        if name == "decoder.conv_in.weight":
            tensor = tensor / config.scaling
        if _ENTERS_STREAM.search(name):
            tensor = tensor * form.stream
        yield name, tensor


def _upsample(weights: Weights, name: str, form: Form) -> Iterator[tuple[str, Tensor]]:
    """The weight sets of one `SubPixelUpsample`."""
    biases = (weights[f"{name}.{conv}.bias"].float() for conv in ("upscale_conv", "conv"))
    low_bias, bias = (bias * form.stream for bias in biases)
    upscale = weights[name + UPSCALE].float(), low_bias
    conv = weights[f"{name}.conv.weight"].float()
    time = len(upscale[0]) == 8 * len(conv)
    reads: dict[str, tuple[sub_pixel.Reads, ...]] = {}
    if time or form.taps == 1:
        reads["first"] = sub_pixel.FIRST_READS
    if form.taps == 3:
        reads |= {"step": sub_pixel.STEP_READS if time else sub_pixel.KEEP_READS}
        reads |= {"second": sub_pixel.SECOND_READS} if time else {}
    for part, phases in reads.items():
        folded = sub_pixel_weights(upscale, conv, phases)
        if not upscale[1].any():
            folded = folded[:, :-1]  # no bias, no channel to carry it
        yield f"{name}.{part}.weight", folded
        yield f"{name}.{part}.bias", bias.repeat(4 * len(phases))
