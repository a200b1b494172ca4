"""Causal convolution in time, whole-clip and streamed, and the norm and attention of one frame.

Every tensor is [B, C, T, H, W]. Source: network spec §6. What couples frames is the causal state
alone: each convolution keeps the last frames of its input for the next call. A `Stream` carries
it: at a shot's start there is no past and the first frame is repeated instead.
"""

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]  # frames, rows, columns


class Stream:
    """The causal state of one call: `past` by convolution (None at a shot's start) and `next`."""

    def __init__(self, past: Mapping[str, Tensor] | None = None) -> None:
        self.past = past
        self.next: dict[str, Tensor] = {}

    @property
    def starts(self) -> bool:
        """Whether this call holds the first frame of a shot."""
        return self.past is None

    def extend(self, name: str, x: Tensor, pad: int, keep: int) -> Tensor:
        """Put the past of `name` before `x` and remember the last `keep` frames of both.

        At a shot's start the past is `pad` copies of the first frame.
        """
        past = [x[:, :, :1]] * pad if self.past is None else [self.past[name]]
        x = torch.cat([*past, x], 2)
        self.next[name] = x[:, :, x.shape[2] - keep :]
        return x


class CausalConv3d(nn.Conv3d):
    """A convolution that sees the past and the present only.

    Rows and columns are padded with zeros: half a kernel on every side, or, where it strides, one
    at the right and the bottom only.
    """

    def __init__(
        self, channels: tuple[int, int], kernel: Triple, *, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__(*channels, kernel, stride)
        self.name = ""  # set by `name_convolutions`; the state's key
        self.keep_frames = kernel[0] - stride[0]  # of the input, for the next call

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        taps, rows, columns = self.kernel_size
        if taps > 1:
            x = stream.extend(self.name, x, taps - 1, self.keep_frames)
        strides = self.stride[1] == 2
        sides = (0, 1, 0, 1) if strides else (columns // 2, columns // 2, rows // 2, rows // 2)
        x = F.pad(x, sides) if any(sides) else x
        if taps == 1 and x.shape[2] == 1:  # one frame is a picture, and has better kernels
            picture = F.conv2d(x[:, :, 0], self.weight[:, :, 0], self.bias, self.stride[1:])
            return picture.unsqueeze(2)
        return self._conv_forward(x, self.weight, self.bias)


class Keeper(Protocol):
    """A module that keeps a causal state: the last `keep_frames` frames of its input."""

    name: str
    keep_frames: int


def name_keepers(root: nn.Module) -> list[str]:
    """Give every module that keeps a state its own name; the names, in order."""
    found = [
        (name, cast(Keeper, m)) for name, m in root.named_modules() if hasattr(m, "keep_frames")
    ]
    for name, keeper in found:
        keeper.name = name
    return [name for name, keeper in found if keeper.keep_frames]


class FrameNorm(nn.GroupNorm):
    """GroupNorm with the statistics of one frame: frames are folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        if T == 1:
            return self.normalise(x)
        # As rows of pixels: TensorRT-RTX then has one kernel for it in bf16, too.
        frames = self.normalise(x.transpose(1, 2).reshape(B * T, C, H * W))
        return frames.view(B, T, C, H, W).transpose(1, 2)

    def normalise(self, frames: Tensor) -> Tensor:
        """Norm frames [N, C, ...], each on its own."""
        return super().forward(frames)


class FrameNormSilu(FrameNorm):
    """The same, and SiLU before frames are brought back: compilers do both in one pass."""

    def normalise(self, frames: Tensor) -> Tensor:
        return F.silu(super().normalise(frames))


class FrameAttention(nn.Module):
    """Attention of one head over the positions of each frame, added to the input."""

    def __init__(self, channels: int, norm: FrameNorm) -> None:
        super().__init__()
        self.group_norm = norm
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 4, 1).reshape(B * T, 1, H * W, C)
        out = self._attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](out).view(B, T, H, W, C).permute(0, 4, 1, 2, 3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B, 1, H W, C] each
        if q.dtype == torch.float32:
            return F.scaled_dot_product_attention(q, k, v)
        # No fused kernel is as wide as this head, and taken apart the softmax would be in 16 bits.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return scores.float().softmax(-1).to(v.dtype) @ v
