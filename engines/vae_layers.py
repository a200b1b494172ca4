"""The folded VAE's weights as our kernels take them: packed once, by the layers' names.

Pictures have whole 16-byte words of channels. Where a width does not fill its last word up, the rest
is zero in every picture: layers give zeros there, norms leave them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vr_trt.errors import ModelError
from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.fp8 import E4M3_MAX
from vr_trt.export.fp8_vae import Coder, fp8_layers
from vr_trt.export.sub_pixel import SubPixelConv
from vr_trt.kernels.conv_few import FewConv, goes_by_taps, pack_few
from vr_trt.kernels.conv_layer import (
    ConvForm,
    PackedConv,
    pack_conv,
    pack_sub_pixel,
    padded_channels,
    quantise,
)
from vr_trt.kernels.group_norm import Norm
from vr_trt.kernels.tuning import capability_of

POINT = ConvForm(taps=1, kernel=1)


@dataclass(frozen=True, slots=True)
class CoderLayers:
    """The layers of one coder; an attention's three inputs are one layer, `<name>.qkv`."""

    dtype: torch.dtype
    device: torch.device
    convs: dict[str, PackedConv] = field(default_factory=dict)
    few: dict[str, FewConv] = field(default_factory=dict)  # of them, those that go by taps
    norms: dict[str, Norm] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)  # of E4M3 inputs: what 1 stands for
    chip: int | None = None  # that block sizes are tuned for; None: that of the device


def pack_coder(
    network: Coder, amax: Mapping[str, float] | None = None, chip: int | None = None
) -> CoderLayers:
    """Pack a folded coder on the device and of the precision that it is in.

    The layers in `amax` (see `export.fp8_vae`) take E4M3 inputs of at most that magnitude. ModelError
    for an `amax` of another network.
    """
    if not network.form.folded:
        raise ModelError("the triton backend runs folded networks: fold the VAE first")
    if unknown := set(amax or {}) - set(fp8_layers(network)):
        raise ModelError(
            f"the calibration names {min(unknown)}, which takes no fp8: measure it anew"
        )
    first = network.conv_in.weight
    layers = CoderLayers(first.dtype, first.device, chip=chip)
    for name, module in network.named_modules():
        if isinstance(module, CausalConv3d):
            layers.convs[name] = _conv(module, fill=module is not network.conv_out)
        elif isinstance(module, SubPixelConv):
            layers.convs[name] = _sub_pixel(module)
        elif isinstance(module, FrameNorm):
            layers.norms[name] = Norm(
                weight=module.weight.float(),
                bias=module.bias.float(),
                groups=module.num_groups,
                eps=module.eps,
            )
        elif isinstance(module, FrameAttention):
            layers.convs[f"{name}.qkv"] = _queries_keys_values(module)
            layers.convs[f"{name}.to_out"] = _point(
                *_filled(*_linear(module.to_out[0])), first.dtype
            )
    last = layers.convs["conv_out"]
    if goes_by_taps(last, chip or capability_of(first.device)):
        layers.few["conv_out"] = pack_few(last)
    for name, largest in (amax or {}).items():
        layers.steps[name] = largest / E4M3_MAX
        layers.convs[name] = quantise(layers.convs[name], layers.steps[name])
    return layers


def _conv(module: CausalConv3d, *, fill: bool) -> PackedConv:
    taps, kernel, _ = module.kernel_size
    stride_t, stride, _ = module.stride
    form = ConvForm(taps=taps, kernel=kernel, stride_t=stride_t, stride=stride)
    weight, bias = module.weight, module.bias
    assert bias is not None
    weight, bias = _filled(weight, bias) if fill else (weight, bias)
    return pack_conv(weight, bias, form, weight.dtype)


def _sub_pixel(module: SubPixelConv) -> PackedConv:
    weight: Tensor = module.weight
    phases, dtype = 4 * module.frames, weight.dtype
    width = len(module.bias) // phases
    filled = padded_channels(width, dtype)
    if filled != width:  # the inputs too: what lies behind them is the channel of ones
        nothing = weight.new_zeros(len(weight), filled - width, *weight.shape[2:])
        weight = torch.cat([weight[:, :width], nothing, weight[:, width:]], 1)
    return pack_sub_pixel(*_filled(weight, module.bias, phases), filled, dtype)


def _filled(weight: Tensor, bias: Tensor, phases: int = 1) -> tuple[Tensor, Tensor]:
    """Weight [phases N, ...] and bias with more outputs, all zero, up to whole words."""
    width = len(bias) // phases
    more = padded_channels(width, weight.dtype) - width
    if not more:
        return weight, bias

    def longer(x: Tensor) -> Tensor:
        x = x.unflatten(0, (phases, width))
        return torch.cat([x, x.new_zeros(phases, more, *x.shape[2:])], 1).flatten(0, 1)

    return longer(weight), longer(bias)


def _linear(module: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(module, nn.Linear)
    return module.weight, module.bias


def _queries_keys_values(module: FrameAttention) -> PackedConv:
    """The linears of one input as one layer, their outputs one after the other."""
    parts = [_filled(*_linear(layer)) for layer in (module.to_q, module.to_k, module.to_v)]
    weight, bias = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    wide, narrow = len(bias) // 3, module.to_q.out_features
    if wide != narrow:  # the kernel divides scores by the root of the width that it sees
        queries = torch.arange(len(bias), device=weight.device) < wide
        factor = torch.where(queries, (wide / narrow) ** 0.5, 1.0)
        return _point(weight * factor[:, None], bias * factor, weight.dtype)
    return _point(weight, bias, weight.dtype)


def _point(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> PackedConv:
    """A linear [N, C] as a convolution of one pixel."""
    return pack_conv(weight[..., None, None, None], bias, POINT, dtype)
