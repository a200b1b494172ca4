"""The folded VAE in PyTorch with the arithmetic of E4M3 convolutions: for calibration and the gate.

What is quantised are the two convolutions of every block, whose input is normed and activated: two
thirds of the decoder's arithmetic. Weights have a scale for each output channel, inputs one for the
tensor, from the largest magnitude seen. The first and the last layer, shortcuts, sampling and
attention stay wide, and so does the residual stream. Products and sums are taken in full.
"""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from vr_trt.export.causal import CausalConv3d, Stream
from vr_trt.export.fp8 import CELL, E4M3_MAX, to_e4m3
from vr_trt.export.vae import Decoder, Encoder, ResBlock

Coder = Encoder | Decoder


def fp8_layers(network: Coder, cell: int = CELL) -> dict[str, CausalConv3d]:
    """The convolutions that E4M3 is for, by name; a `cell` of 1 takes any number of channels."""
    found: dict[str, CausalConv3d] = {}
    for name, block in network.named_modules():
        if isinstance(block, ResBlock):
            for part in ("conv1", "conv2"):
                conv = getattr(block, part)
                if conv.in_channels % cell == 0 and conv.out_channels % cell == 0:
                    found[f"{name}.{part}"] = conv
    return found


@torch.no_grad()
def observe(network: Coder, clips: Iterable[Tensor], cell: int = CELL) -> dict[str, float]:
    """The largest magnitude of the input of every `fp8_layers` over `clips`, each a shot."""
    amax: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, Stream]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, Stream]) -> None:
            amax[name] = max(amax.get(name, 0.0), float(arguments[0].abs().max()))

        return hook

    layers = fp8_layers(network, cell)
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for clip in clips:
            network(clip, Stream())
    finally:
        for hook in hooks:
            hook.remove()
    return amax


def quantise_coder(network: Coder, amax: Mapping[str, float]) -> Coder:
    """A copy of `network` whose layers in `amax` round weights and inputs to E4M3."""
    quantised = copy.deepcopy(network)
    layers = fp8_layers(quantised, cell=1)
    for name, largest in amax.items():
        layer, weight = layers[name], layers[name].weight.data
        scale = (weight.abs().amax((1, 2, 3, 4), keepdim=True) / E4M3_MAX).clamp_min(1e-30)
        layer.weight.data = _rounded(weight, scale)
        layer.register_forward_pre_hook(_rounding(largest / E4M3_MAX))
    return quantised


def _rounding(step: float) -> Callable[[nn.Module, tuple[Tensor, Stream]], tuple[Tensor, Stream]]:
    def hook(module: nn.Module, arguments: tuple[Tensor, Stream]) -> tuple[Tensor, Stream]:
        x, stream = arguments
        return _rounded(x, step), stream

    return hook


def _rounded(x: Tensor, scale: Tensor | float) -> Tensor:
    """`x` as E4M3 with that scale holds it, in its own dtype."""
    return to_e4m3(x / scale).to(x.dtype) * scale
