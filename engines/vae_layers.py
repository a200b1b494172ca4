"""The folded VAE's weights as our kernels take them: packed once, by the layers' names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vr_trt.errors import ModelError
from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.fp8_vae import E4M3_MAX, Coder, fp8_layers
from vr_trt.export.sub_pixel import SubPixelConv
from vr_trt.kernels.conv_layer import (
    ConvForm,
    PackedConv,
    pack_conv,
    pack_sub_pixel,
    padded_channels,
    quantise,
)
from vr_trt.kernels.group_norm import Norm

POINT = ConvForm(taps=1, kernel=1)


@dataclass(frozen=True, slots=True)
class CoderLayers:
    """The layers of one coder; an attention's three inputs are one layer, `<name>.qkv`."""

    dtype: torch.dtype
    device: torch.device
    convs: dict[str, PackedConv] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)  # of E4M3 inputs: what 1 stands for


def pack_coder(network: Coder, amax: Mapping[str, float] | None = None) -> CoderLayers:
    """Pack a folded coder on the device and of the precision that it is in.

    The layers in `amax` (see `export.fp8_vae`) take E4M3 inputs of at most that magnitude. ModelError
    for widths that are not whole 16-byte words, and for an `amax` of another network.
    """
    if not network.form.folded:
        raise ModelError("the triton backend runs folded networks: fold the VAE first")
    first = network.conv_in.weight
    for width in network.config.channels:
        if padded_channels(width, first.dtype) != width:
            raise ModelError(
                f"the triton backend wants widths in whole 16-byte words, not {width} channels of "
                f"{first.dtype}: choose another --backend"
            )
    layers = CoderLayers(first.dtype, first.device)
    for name, module in network.named_modules():
        if isinstance(module, CausalConv3d):
            layers.convs[name] = _conv(module)
        elif isinstance(module, SubPixelConv):
            width = module.weight.shape[0] // (4 * module.frames)
            layers.convs[name] = pack_sub_pixel(module.weight, module.bias, width, first.dtype)
        elif isinstance(module, FrameNorm):
            layers.norms[name] = Norm(
                weight=module.weight.float(),
                bias=module.bias.float(),
                groups=module.num_groups,
                eps=module.eps,
            )
        elif isinstance(module, FrameAttention):
            layers.convs[f"{name}.qkv"] = _linears(module.to_q, module.to_k, module.to_v)
            layers.convs[f"{name}.to_out"] = _linears(*module.to_out)
    if unknown := set(amax or {}) - set(fp8_layers(network)):
        raise ModelError(
            f"the calibration names {min(unknown)}, which takes no fp8: measure it anew"
        )
    for name, largest in (amax or {}).items():
        layers.steps[name] = largest / E4M3_MAX
        layers.convs[name] = quantise(layers.convs[name], layers.steps[name])
    return layers


def _conv(module: CausalConv3d) -> PackedConv:
    taps, kernel, _ = module.kernel_size
    stride_t, stride, _ = module.stride
    form = ConvForm(taps=taps, kernel=kernel, stride_t=stride_t, stride=stride)
    bias = module.bias
    assert bias is not None
    return pack_conv(module.weight, bias, form, module.weight.dtype)


def _linears(*modules: nn.Module) -> PackedConv:
    """Linears of one input as one layer, their outputs one after the other."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(module, name) for module in modules])

    weight = joined("weight")
    return pack_conv(weight[..., None, None, None], joined("bias"), POINT, weight.dtype)
