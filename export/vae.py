"""The causal video VAE, with the checkpoint's names, whole-clip and streamed.

Tensors are [B, C, T, H, W]; 4n + 1 frames are n + 1 latents, 8 x 8 pixels are one latent pixel.
Source: network spec §6. One set of classes serves the checkpoint's form and the two
deployed ones, which `fold_vae` fills.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from vr_trt.export.causal import (
    CausalConv3d,
    FrameAttention,
    FrameNorm,
    FrameNormSilu,
    Stream,
    name_keepers,
)
from vr_trt.export.config import VaeConfig
from vr_trt.export.sub_pixel import SubPixelUpsample

State = Mapping[str, Tensor]
LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True, slots=True)
class Form:
    """Which form of the network: `taps` in time of the 3x3x3 convolutions; folded or not.

    Folded, the encoder gives the scaled mean alone, the decoder takes it, and it upsamples by
    sub-pixel convolutions. With one tap it is the network of a single picture.

    What lies between norms is multiplied by `stream`, and the norms' epsilon by its square, which
    changes nothing else: a norm divides by the size of its input.
    """

    taps: int = 3
    folded: bool = False
    stream: float = 1.0

    @property
    def kernel(self) -> tuple[int, int, int]:
        return self.taps, 3, 3

    def norm(self, config: VaeConfig, width: int) -> FrameNorm:
        """A norm of `width` channels with SiLU."""
        return FrameNormSilu(config.groups, width, self.eps(config))

    def eps(self, config: VaeConfig) -> float:
        """The norms' epsilon."""
        return config.norm_eps * self.stream**2


# TensorRT-RTX 1.7.1 builds every GroupNorm with an epsilon of 1e-5, whatever the graph says (see
# docs/engines.md): so the deployed forms have that one. The checkpoint's is 1e-6.
STREAM = 10**0.5
PLAIN = Form()
VIDEO, IMAGE = Form(folded=True, stream=STREAM), Form(taps=1, folded=True, stream=STREAM)


class ResBlock(nn.Module):
    """norm, SiLU, convolution, twice, added to the input (through 1x1x1 if widths differ)."""

    def __init__(self, config: VaeConfig, form: Form, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = form.norm(config, width_in)
        self.conv1 = CausalConv3d((width_in, width), form.kernel)
        self.norm2 = form.norm(config, width)
        self.conv2 = CausalConv3d((width, width), form.kernel)
        if width_in != width:
            self.conv_shortcut = CausalConv3d((width_in, width), (1, 1, 1))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        y = self.conv1(self.norm1(x), stream)
        y = self.conv2(self.norm2(y), stream)
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x, stream)
        return x + y


class Downsample(nn.Module):
    """Half the rows and columns, and half the frames if `time`."""

    def __init__(self, form: Form, width: int, time: bool) -> None:
        super().__init__()
        taps, stride = (3, 2) if time and form.taps == 3 else (1, 1)
        self.conv = CausalConv3d((width, width), (taps, 3, 3), stride=(stride, 2, 2))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(x, stream)


class Upsample(nn.Module):
    """Twice the rows and columns by pixel shuffle, twice the frames if `time`; then 3x3x3.

    At a shot's start the second frame is dropped: n + 1 frames become 2n + 1.
    """

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.frames = 2 if time else 1
        self.upscale_conv = CausalConv3d((width, 4 * self.frames * width), (1, 1, 1))
        self.conv = CausalConv3d((width, width), (3, 3, 3))

    def shuffle(self, x: Tensor) -> Tensor:
        """[B, (row column frame C), T, H, W] to [B, C, T r, 2 H, 2 W]."""
        B, _, T, H, W = x.shape
        x = x.view(B, 2, 2, self.frames, -1, T, H, W)
        x = x.permute(0, 4, 5, 3, 6, 1, 7, 2)  # B, C, T, frame, H, row, W, column
        return x.reshape(B, x.shape[1], T * self.frames, 2 * H, 2 * W)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.shuffle(self.upscale_conv(x, stream))
        if self.frames == 2 and stream.starts:
            x = torch.cat([x[:, :, :1], x[:, :, 2:]], 2)
        return self.conv(x, stream)


class Level(nn.Module):
    """The blocks of one resolution, then the step to the next if there is one."""

    def __init__(
        self, config: VaeConfig, form: Form, widths: list[int], step: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(config, form, a, b) for a, b in pairwise(widths))
        for name, module in step.items():  # `downsamplers` or `upsamplers`
            self.add_module(name, nn.ModuleList([module]))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        for blocks in self.children():
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, stream)
        return x


class MidBlock(nn.Module):
    """Block, attention, block."""

    def __init__(self, config: VaeConfig, form: Form, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(config, form, width, width) for _ in range(2))
        self.attentions = nn.ModuleList(
            [FrameAttention(width, FrameNorm(config.groups, width, form.eps(config)))]
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, stream))
        return self.resnets[1](x, stream)


class Encoder(nn.Module):
    """[B, 3, 4n+1, H, W] to [B, 32, n+1, H/8, W/8]: the mean and the log variance.

    Folded, to the latent [B, 16, n+1, H/8, W/8]: the mean, scaled. Nothing but the causal state
    couples frames: `fine` may be called frame by frame, and `coarse` with all of its results.
    """

    def __init__(self, config: VaeConfig, form: Form = PLAIN) -> None:
        super().__init__()
        self.config, self.form = config, form
        widths = config.channels
        self.conv_in = CausalConv3d((config.image_channels, widths[0]), form.kernel)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [widths[max(i - 1, 0)], *[width] * config.encoder_resnets]
            step: dict[str, nn.Module] = {}
            if i < len(widths) - 1:
                step["downsamplers"] = Downsample(form, width, time=i > 0)
            self.down_blocks.append(Level(config, form, blocks, step))
        self.mid_block = MidBlock(config, form, widths[-1])
        self.conv_norm_out = form.norm(config, widths[-1])
        outputs = config.latent_channels * (1 if form.folded else 2)
        self.conv_out = CausalConv3d((widths[-1], outputs), form.kernel)
        self.states = name_keepers(self)

    @property
    def fine_states(self) -> list[str]:
        """The states that `fine` keeps; `coarse` keeps the others."""
        return [n for n in self.states if n == "conv_in" or n.startswith("down_blocks.0.")]

    def fine(self, x: Tensor, stream: Stream) -> Tensor:
        """The full resolution, at the end of which it is halved; any number of frames."""
        return self.down_blocks[0](self.conv_in(x, stream), stream)

    def coarse(self, x: Tensor, stream: Stream) -> Tensor:
        """All lower resolutions."""
        for level in self.down_blocks[1:]:
            x = level(x, stream)
        x = self.mid_block(x, stream)
        return self.conv_out(self.conv_norm_out(x), stream)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.coarse(self.fine(x, stream), stream)


class Decoder(nn.Module):
    """[B, 16, n+1, h, w] to [B, 3, 4n+1, 8h, 8w]; folded, of scaled latents.

    `fine` may be called frame by frame with the result of `coarse`.
    """

    def __init__(self, config: VaeConfig, form: Form = PLAIN) -> None:
        super().__init__()
        self.config, self.form = config, form
        widths = config.channels[::-1]
        self.conv_in = CausalConv3d((config.latent_channels, widths[0]), form.kernel)
        self.mid_block = MidBlock(config, form, widths[0])
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [widths[max(i - 1, 0)], *[width] * config.decoder_resnets]
            step: dict[str, nn.Module] = {}
            if i < len(widths) - 1:
                step["upsamplers"] = _upsample(form, width, time=i < 2)
            self.up_blocks.append(Level(config, form, blocks, step))
        self.conv_norm_out = form.norm(config, widths[-1])
        self.conv_out = CausalConv3d((widths[-1], config.image_channels), form.kernel)
        self.states = name_keepers(self)

    @property
    def fine_states(self) -> list[str]:
        """The states that `fine` keeps; `coarse` keeps the others."""
        fine = ("up_blocks.2.", "up_blocks.3.", "conv_out")
        return [name for name in self.states if name.startswith(fine)]

    def coarse(self, x: Tensor, stream: Stream) -> Tensor:
        """Up to half the resolution, where the number of frames is the final one."""
        x = self.mid_block(self.conv_in(x, stream), stream)
        for level in self.up_blocks[:2]:
            x = level(x, stream)
        return x

    def fine(self, x: Tensor, stream: Stream) -> Tensor:
        """Half and full resolution; any number of frames."""
        for level in self.up_blocks[2:]:
            x = level(x, stream)
        return self.conv_out(self.conv_norm_out(x), stream)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.fine(self.coarse(x, stream), stream)


def _upsample(form: Form, width: int, time: bool) -> nn.Module:
    if not form.folded:
        return Upsample(width, time)
    return SubPixelUpsample(width, time=time, video=form.taps == 3)


class VideoVae(nn.Module):
    """Encoder and decoder; a whole clip at once, or in steps that carry the causal state.

    Streamed: the first call of a shot has `state` None and takes 1, 5, 9 … frames (1, 2, 3 …
    latents); every later call takes the state that the last one gave and 4k frames (k latents).
    The result is that of the whole clip.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> Tensor:
        """Moments [B, 32, n+1, h, w] (mean, log variance) of a clip [B, 3, 4n+1, H, W]."""
        return self.encode_stream(x, None)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The clip [B, 3, 4n+1, H, W] of unscaled latents [B, 16, n+1, h, w]."""
        return self.decode_stream(z, None)[0]

    def encode_stream(self, x: Tensor, state: State | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Moments of the next frames of a shot, and the state for the frames after them."""
        stream = Stream(state)
        return self.encoder(x, stream), stream.next

    def decode_stream(self, z: Tensor, state: State | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames of the next latents of a shot, and the state for the latents after them."""
        stream = Stream(state)
        return self.decoder(z, stream), stream.next


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and clamped log variance [B, 16, ...] of the encoder's output."""
    mean, logvar = moments.chunk(2, 1)
    return mean, logvar.clamp(*LOGVAR_RANGE)
