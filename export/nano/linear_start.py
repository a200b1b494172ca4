"""Start the VAE as a linear code of 8 x 8 blocks, so that training begins where PCA ends.

The identity path of the network (everything but the residual branches) is nearly linear, and can
hold a tree of principal components: each downsampling takes 2 x 2 patches of the channels before
it to their strongest components, each `upscale_conv` does the reverse. Two details make the norms
and the SiLUs on that path nearly linear too: the first channel of every norm group is a constant
that outweighs the picture in the group's statistics, and the last SiLUs work around `LIFT`, where
their slope is nearly one. Training is free to leave all this behind but for the constants.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.nano.components import Components, Matrix, components
from vr_trt.export.vae import ResBlock, Upsample, VideoVae

LOUD = 3.0  # the constant in the first channel of each norm group; pictures are in -1..1
LIFT = 4.0
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # row, column of a 2 x 2 patch
# Convolutions on the identity path, by the ends of their names.
_READERS = ("conv_shortcut", "upscale_conv", "downsamplers.0.conv", "upsamplers.0.conv")
_MAKERS = (*_READERS, "conv_in", "conv1", "conv2")


def _loud(channels: int, groups: int) -> list[int]:
    return list(range(0, channels, channels // groups))


def free_slots(channels: int, groups: int) -> list[int]:
    """The channels of the identity path that may carry the picture."""
    return [c for c in range(channels) if c % (channels // groups)]


def start_linear(vae: VideoVae, pictures: Matrix, noise: float = 0.02) -> None:
    """Set all weights of `vae` from `pictures` [N, 3, H, W] in -1..1; `noise` breaks symmetry.

    Random numbers come from torch's generator. Every bias of `upscale_conv` is zero.
    """
    groups, widths = vae.config.groups, vae.config.channels
    rooms = [len(free_slots(width, groups)) for width in widths]
    tree = components(pictures, (rooms[0], rooms[1], rooms[2]), vae.config.latent_channels)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResBlock):
                _start_branch(module, groups)
            elif isinstance(module, FrameAttention):
                _open(module.group_norm)
                for parameter in module.to_out.parameters():
                    parameter.zero_()
        _start_encoder(vae, tree, noise)
        _start_decoder(vae, tree, noise)


def hold_constants(vae: VideoVae) -> None:
    """Keep training from moving the constants, or what reads them on the identity path.

    A weight that reads a constant is a bias with a louder gradient: left free, these weights are
    most of the noise of training.
    """
    groups = vae.config.groups
    for name, module in vae.named_modules():
        if not isinstance(module, CausalConv3d) or not name.endswith(_MAKERS):
            continue
        bias = _bias(module)
        weight_mask, bias_mask = torch.ones_like(module.weight), torch.ones_like(bias)
        if not name.endswith("upscale_conv"):
            weight_mask[_loud(module.out_channels, groups)] = 0
            bias_mask[_loud(module.out_channels, groups)] = 0
        if name.endswith(_READERS):
            weight_mask[:, _loud(module.in_channels, groups)] = 0
        _mask_gradient(module.weight, weight_mask)
        if bias.requires_grad:
            _mask_gradient(bias, bias_mask)


def _mask_gradient(parameter: Tensor, mask: Tensor) -> None:
    parameter.register_hook(partial(torch.mul, mask))


def _conv(root: nn.Module, name: str) -> CausalConv3d:
    module = root.get_submodule(name)
    assert isinstance(module, CausalConv3d)
    return module


def _bias(conv: CausalConv3d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _shout(conv: CausalConv3d, groups: int) -> None:
    """Make the first channel of every group the constant."""
    loud = _loud(conv.out_channels, groups)
    conv.weight[loud] = 0
    _bias(conv)[loud] = LOUD


def _open(norm: FrameNorm, lift: float = 0.0) -> None:
    """Undo what the norm does to the free channels of a group whose first is the constant."""
    share = norm.num_channels // norm.num_groups
    norm.weight.fill_(LOUD * (share - 1) ** 0.5 / share)
    norm.bias.fill_(LOUD / share + lift)
    loud = _loud(norm.num_channels, norm.num_groups)
    norm.weight[loud] = 0
    norm.bias[loud] = 0


def _clear(conv: CausalConv3d, groups: int, noise: float = 0.0) -> None:
    """Zero but for the constants and a little noise on the present frame's taps."""
    conv.weight.zero_()
    if noise:
        bound = noise * (conv.in_channels * conv.kernel_size[1] * conv.kernel_size[2]) ** -0.5
        conv.weight[:, :, -1].normal_(0, bound)
    _bias(conv).zero_()
    _shout(conv, groups)


def _start_branch(block: ResBlock, groups: int) -> None:
    """A residual branch: open norms, a He-sized first convolution, nothing out at first."""
    _open(block.norm1)
    block.conv1.weight.zero_()
    block.conv1.weight[:, :, -1].normal_(0, (2 / (9 * block.conv1.in_channels)) ** 0.5)
    _shout(block.conv1, groups)
    _open(block.norm2)
    block.conv2.weight.zero_()
    _bias(block.conv2).zero_()


def _start_shortcuts(level: nn.Module, groups: int, used: int) -> None:
    """Where the width changes, carry the first `used` free channels over."""
    for name, short in level.named_modules():
        if name.endswith("conv_shortcut"):
            assert isinstance(short, CausalConv3d)
            _clear(short, groups)
            rows = free_slots(short.out_channels, groups)[:used]
            short.weight[rows, free_slots(short.in_channels, groups)[:used], -1, 0, 0] = 1


def _embed(matrix: Matrix, slots: list[int], width: int) -> Tensor:  # [width, width]
    """A small matrix between the free slots of the identity path."""
    full = torch.zeros(width, width)
    rows = torch.tensor(slots[: matrix.shape[0]])[:, None]
    columns = torch.tensor(slots[: matrix.shape[1]])[None, :]
    full[rows, columns] = torch.from_numpy(matrix).float()
    return full


def _silu_at_lift() -> tuple[float, float]:
    """Value and slope of SiLU at LIFT."""
    gate = 1 / (1 + math.exp(-LIFT))
    return LIFT * gate, gate + LIFT * gate * (1 - gate)


def _start_encoder(vae: VideoVae, tree: Components, noise: float) -> None:
    encoder, groups = vae.encoder, vae.config.groups
    _clear(encoder.conv_in, groups, noise)
    slots = free_slots(encoder.conv_in.out_channels, groups)
    for colour in range(3):
        encoder.conv_in.weight[slots[colour], colour, -1, 1, 1] = 1
    used = 3
    for index, level in enumerate(encoder.down_blocks):
        _start_shortcuts(level, groups, used)
        if index < len(tree.levels):
            conv = _conv(level, "downsamplers.0.conv")
            _start_downsample(conv, tree.levels[index], groups, noise)
            used = len(tree.levels[index])
    _open(encoder.conv_norm_out, LIFT)
    _start_latents(vae, tree, noise)


def _start_downsample(conv: CausalConv3d, basis: Matrix, groups: int, noise: float) -> None:
    _clear(conv, groups, noise)
    slots = free_slots(conv.out_channels, groups)
    used = basis.shape[1] // 4
    for place, (row, column) in enumerate(PLACES):
        part = basis[:, place * used : (place + 1) * used]
        conv.weight[:, :, -1, row, column] += _embed(part, slots, conv.out_channels)


def _start_latents(vae: VideoVae, tree: Components, noise: float) -> None:
    """The encoder's last convolution: the strongest components, each of unit spread."""
    conv, latents = vae.encoder.conv_out, vae.config.latent_channels
    value, slope = _silu_at_lift()
    conv.weight.zero_()
    conv.weight[:, :, -1].normal_(0, 0.1 * noise * conv.in_channels**-0.5)
    bias = _bias(conv)
    bias.zero_()
    slots = free_slots(conv.in_channels, vae.config.groups)
    for index in range(latents):
        gain = 1 / (slope * float(tree.scale[index]))
        conv.weight[index, slots[index], -1, 1, 1] += gain
        bias[index] = -gain * value
    bias[latents:] = -6.0  # little noise at first


def _start_decoder(vae: VideoVae, tree: Components, noise: float) -> None:
    decoder, groups = vae.decoder, vae.config.groups
    _clear(decoder.conv_in, groups, noise)
    slots = free_slots(decoder.conv_in.out_channels, groups)
    for index in range(vae.config.latent_channels):
        decoder.conv_in.weight[slots[index], index, -1, 1, 1] += float(tree.scale[index])
    levels = tree.levels[::-1]
    for index, level in enumerate(decoder.up_blocks):
        if index < len(levels):
            _start_shortcuts(level, groups, len(levels[index]))
            upsample = level.get_submodule("upsamplers.0")
            assert isinstance(upsample, Upsample)
            _start_upsample(upsample, levels[index], groups, noise)
        else:
            _start_shortcuts(level, groups, 3)
    _open(decoder.conv_norm_out, LIFT)
    value, slope = _silu_at_lift()
    decoder.conv_out.weight.zero_()
    slots = free_slots(decoder.conv_out.in_channels, groups)
    for colour in range(3):
        decoder.conv_out.weight[colour, slots[colour], -1, 1, 1] = 1 / slope
        _bias(decoder.conv_out)[colour] = -value / slope


def _start_upsample(upsample: Upsample, basis: Matrix, groups: int, noise: float) -> None:
    """The reverse of one level: each of the 2 x 2 places reads its part of every component."""
    conv = upsample.upscale_conv
    width, used = conv.in_channels, basis.shape[1] // 4
    slots = free_slots(width, groups)
    # The basis' rows have length one half, so the reverse is four times the transpose.
    places = [4 * basis[:, place * used : (place + 1) * used].T for place in range(4)]
    parts = [_embed(part, slots, width) for part in places]
    weight = torch.cat([part for part in parts for _ in range(upsample.frames)])
    conv.weight.copy_(weight[:, :, None, None, None])
    conv.weight.add_(torch.randn_like(conv.weight) * (0.3 * noise * width**-0.5))
    _bias(conv).zero_()
    _clear(upsample.conv, groups, noise)
    upsample.conv.weight[:, :, -1, 1, 1] += torch.eye(width)
    _shout(upsample.conv, groups)
