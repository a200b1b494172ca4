"""Start the VAE as a linear code of 8 x 8 x 4 blocks, so that training begins where PCA ends.

The identity path of the network (everything but the residual branches) is nearly linear, and can
hold a tree of principal components: each downsampling takes patches of 2 x 2 pixels (and 2 frames)
of the channels before it to their strongest components, each `upscale_conv` does the reverse. A
shot's first frame comes alone: it is coded as two equal frames, of which one is dropped.

Three details make the norms and the SiLUs on that path nearly linear too: the first channel of
every norm group is a constant that outweighs the picture in the group's deviation; before the last
norms a group's channels add up to zero, so that the picture does not move the group's mean; the
encoder's last SiLU works around `LIFT`, where its slope is nearly one, and the decoder's on pairs
x, -x, since silu(x) - silu(-x) = x. Training is free to leave all this behind but for the constants.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.nano.components import PLACES, Components, Matrix, Place, components
from vr_trt.export.vae import Decoder, ResBlock, Upsample, VideoVae

LOUD = 12.0  # the constant in the first channel of each norm group; pictures are in -1..1
LIFT = 4.0
SPREAD = 0.4  # of each component around LIFT: wide for bf16, narrow for the slope
# Convolutions on the identity path, by the ends of their names.
_READERS = ("conv_shortcut", "upscale_conv", "downsamplers.0.conv", "upsamplers.0.conv")
_MAKERS = (*_READERS, "conv_in", "conv1", "conv2")


def on_identity_path(name: str) -> bool:
    """Whether the VAE's parameter of that name belongs to a convolution on the identity path."""
    return name.rpartition(".")[0].endswith((*_READERS, "conv_in", "conv_out"))


def _loud(channels: int, groups: int) -> list[int]:
    return list(range(0, channels, channels // groups))


def free_slots(channels: int, groups: int) -> list[int]:
    """The channels of the identity path that may carry the picture."""
    return [c for c in range(channels) if c % (channels // groups)]


def coded_slots(channels: int, groups: int) -> list[int]:
    """Those of them that are not needed to balance a group."""
    share = channels // groups
    return [c for c in free_slots(channels, groups) if c % share < share - 1]


def start_linear(vae: VideoVae, clips: Matrix, noise: float = 0.002) -> None:
    """Set all weights of `vae` from `clips` [N, 3, 4n, H, W] in -1..1; `noise` breaks symmetry.

    Random numbers come from torch's generator. Every bias of `upscale_conv` is zero.
    """
    groups, widths = vae.config.groups, vae.config.channels
    first, second, third, last = widths
    latents = vae.config.latent_channels
    if third != last or latents > len(coded_slots(last, groups)):
        raise ValueError(f"no linear code of {latents} latents in widths {widths}")
    rooms = len(free_slots(first, groups)), len(free_slots(second, groups)), latents
    tree = components(clips, rooms, latents)
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
    most of the noise of training. What the encoder's last convolution reads is constant in part.
    """
    vae.encoder.conv_out.weight.register_hook(_without_mean)
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


def _without_mean(gradient: Tensor) -> Tensor:
    """What moves every tap of an output channel alike is for the bias to do."""
    return gradient - gradient.mean((1, 2, 3, 4), keepdim=True)


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


def _open(norm: FrameNorm) -> None:
    """Undo what the norm does to the free channels of a group whose first is the constant."""
    share = norm.num_channels // norm.num_groups
    norm.weight.fill_(LOUD * (share - 1) ** 0.5 / share)
    norm.bias.fill_(LOUD / share)
    loud = _loud(norm.num_channels, norm.num_groups)
    norm.weight[loud] = 0
    norm.bias[loud] = 0


def _clear(conv: CausalConv3d, groups: int, noise: float = 0.0) -> None:
    """Zero but for the constants and a little noise on the present frame's taps."""
    conv.weight.zero_()
    if noise:
        bound = noise * (conv.in_channels * conv.kernel_size[1] * conv.kernel_size[2]) ** -0.5
        conv.weight[:, :, -1].normal_(0, bound)
        if conv.in_channels % groups == 0:  # else it reads a picture or latents
            conv.weight[:, _loud(conv.in_channels, groups)] = 0
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


def _balance(conv: CausalConv3d, groups: int) -> None:
    """Make the last channel of every group minus the sum of what the others carry."""
    weight = conv.weight.unflatten(0, (groups, -1))
    weight[:, -1] = -weight[:, 1:-1].sum(1)


def _embed(matrix: Matrix, into: list[int], slots: list[int], width: int) -> Tensor:
    """A small matrix between slots of the identity path, [width, width]."""
    full = torch.zeros(width, width)
    rows = torch.tensor(into[: matrix.shape[0]])[:, None]
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
            _clear(conv, groups, noise)
            last = index == len(tree.levels) - 1
            into = (coded_slots if last else free_slots)(conv.out_channels, groups)
            _start_downsample(conv, tree.levels[index], PLACES[index], into, groups)
            used = len(tree.levels[index])
            if last:
                _balance(conv, groups)
    _start_latents(vae, tree, noise)


def _start_downsample(
    conv: CausalConv3d, basis: Matrix, places: tuple[Place, ...], into: list[int], groups: int
) -> None:
    """A patch's first frame is read by the last tap but one, if there are two of them."""
    width, slots = conv.out_channels, free_slots(conv.out_channels, groups)
    used, frames = basis.shape[1] // len(places), len(places) // 4
    for index, (row, column, frame) in enumerate(places):
        part = basis[:, index * used : (index + 1) * used]
        conv.weight[:, :, frame - frames, row, column] += _embed(part, into, slots, width)


def _start_latents(vae: VideoVae, tree: Components, noise: float) -> None:
    """The encoder's last norm and convolution: the strongest components, each of unit spread."""
    norm, conv = vae.encoder.conv_norm_out, vae.encoder.conv_out
    latents, slots = vae.config.latent_channels, coded_slots(conv.in_channels, vae.config.groups)
    _open(norm)
    gains = SPREAD / torch.from_numpy(tree.scale)
    norm.weight[slots[:latents]] *= gains
    norm.bias[slots[:latents]] *= gains
    norm.bias.add_(LIFT)
    value, slope = _silu_at_lift()
    conv.weight.zero_()
    conv.weight[:, :, -1].normal_(0, noise * conv.in_channels**-0.5)
    bias = _bias(conv)
    bias.zero_()
    for index in range(latents):
        conv.weight[index, slots[index], -1, 1, 1] += 1 / (slope * SPREAD)
        bias[index] = -value / (slope * SPREAD)
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
    _start_colours(decoder, groups)


def _start_colours(decoder: Decoder, groups: int) -> None:
    """Each colour and its negative, through the last norm and SiLU."""
    short = _conv(decoder.up_blocks[-1], "resnets.0.conv_shortcut")
    slots = free_slots(short.out_channels, groups)
    colours, negatives = slots[:3], slots[3:6]
    short.weight[negatives] = -short.weight[colours]
    _open(decoder.conv_norm_out)
    out = decoder.conv_out
    out.weight.zero_()
    _bias(out).zero_()
    for colour in range(3):
        out.weight[colour, colours[colour], -1, 1, 1] = 1
        out.weight[colour, negatives[colour], -1, 1, 1] = -1


def _start_upsample(upsample: Upsample, basis: Matrix, groups: int, noise: float) -> None:
    """The reverse of one level: each place of a patch reads its part of every component."""
    conv = upsample.upscale_conv
    places = 4 * upsample.frames
    width, used = conv.in_channels, basis.shape[1] // places
    slots = free_slots(width, groups)
    # The basis' rows are of length 1 / sqrt(places), so the reverse is that many times as large.
    parts = [places * basis[:, place * used : (place + 1) * used].T for place in range(places)]
    weight = torch.cat([_embed(part, slots, slots, width) for part in parts])
    conv.weight.copy_(weight[:, :, None, None, None])
    conv.weight.add_(torch.randn_like(conv.weight) * (0.3 * noise * width**-0.5))
    _bias(conv).zero_()
    _clear(upsample.conv, groups, noise)
    upsample.conv.weight[:, :, -1, 1, 1] += torch.eye(width)
    _shout(upsample.conv, groups)
