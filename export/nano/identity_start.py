"""Start the generator as the identity: what comes out is the latent that was put in.

The network predicts v = noise - restored, so the noise must reach the end unchanged. The first
channels of the residual stream carry a patch's noise - latent from end to end, the next is a large
constant, which keeps the norms' divisor nearly the same for every token, and the rest are features
of the latent. The modulation hides the first channels from the blocks, which add nothing at
first, and undoes the divisor.
"""

import torch
from torch import Tensor, nn

from vr_trt.export.generator import Generator, LayerModulation, SwiGlu, WindowAttention

LOUD = 200.0  # the constant


def start_identity(generator: Generator) -> None:
    """Set the weights that make `generator` predict noise - latent; torch's generator draws.

    ValueError for a width without room for a patch of latents, the constant and some features.
    """
    config = generator.config
    patch = 4 * config.vid_out_channels
    if config.width <= patch + 1:
        raise ValueError(f"the generator's width must exceed {patch + 1}: {config}")
    features = config.width - patch - 1
    energy = LOUD**2 + 2 * patch + features  # of a token; noise and latents are of unit spread
    scale = torch.full((config.width,), (energy / config.width) ** 0.5)
    scale[patch] /= LOUD
    with torch.no_grad():
        for module in generator.modules():
            _start_module(module, scale, hidden=patch)
        _start_ends(generator, scale)


def _start_module(module: nn.Module, scale: Tensor, hidden: int) -> None:
    if isinstance(module, LayerModulation):
        for name, value in module.named_parameters():
            if name.endswith("scale"):
                value.copy_(scale)
                value[:hidden] = 0
            elif name.endswith("gate"):
                value.fill_(1)
    elif isinstance(module, SwiGlu):
        module.proj_out.weight.zero_()
    elif isinstance(module, WindowAttention):
        for projection in module.proj_out.children():
            assert isinstance(projection, nn.Linear)
            projection.weight.zero_()
            projection.bias.zero_()


def _start_ends(generator: Generator, scale: Tensor) -> None:
    into, out = generator.vid_in.proj, generator.vid_out.proj
    channels = generator.config.vid_out_channels
    patch = 4 * channels
    eye = torch.eye(patch).view(patch, 4, channels)
    weight = torch.zeros(len(scale), 4, generator.config.vid_in_channels)
    weight[:patch, :, :channels] = eye
    weight[:patch, :, channels : 2 * channels] = -eye
    weight[patch + 1 :, :, channels : 2 * channels].normal_(0, patch**-0.5)
    into.weight.copy_(weight.flatten(1))
    into.bias.zero_()
    into.bias[patch] = LOUD
    out.weight.zero_()
    out.weight[:, :patch] = torch.eye(patch)
    out.bias.zero_()
    generator.vid_out_ada.out_scale.copy_(scale)
    generator.emb_in.proj_out.weight.zero_()
    generator.emb_in.proj_out.bias.zero_()
