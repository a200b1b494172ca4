"""Causal convolution in time, whole-clip and streamed, and the norm and attention of one frame.

Every tensor is [B, C, T, H, W]. Source: network spec §6. What couples frames is the causal state
alone: each convolution keeps the last frames of its input for the next call. A `Stream` carries
it: at a shot's start there is no past and the first frame is repeated instead.
"""

from collections.abc import Mapping

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
        past = x[:, :, :1].repeat(1, 1, pad, 1, 1) if self.past is None else self.past[name]
        x = torch.cat([past, x], 2)
        self.next[name] = x[:, :, x.shape[2] - keep :]
        return x


class CausalConv3d(nn.Conv3d):
    """A convolution that sees the past and the present only.

    `rows_columns_pad` is the zero padding of rows and columns: both sides alike, or, with
    `"right"`, one at the right and bottom only (the encoder's downsampling).
    """

    def __init__(
        self, channels: tuple[int, int], kernel: Triple, *, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__(*channels, kernel, stride)
        self.name = ""  # set by `name_convolutions`; the state's key

    @property
    def pad_frames(self) -> int:
        """Frames repeated before a shot's first."""
        return self.kernel_size[0] - 1

    @property
    def keep_frames(self) -> int:
        """Frames of the input kept for the next call."""
        return self.kernel_size[0] - self.stride[0]

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        if self.pad_frames:
            x = stream.extend(self.name, x, self.pad_frames, self.keep_frames)
        return self._conv_forward(self.pad_space(x), self.weight, self.bias)

    def pad_space(self, x: Tensor) -> Tensor:
        """Zero padding of rows and columns: half the kernel, or right and bottom if strided."""
        if self.stride[1] == 2:
            return F.pad(x, (0, 1, 0, 1))
        side = self.kernel_size[1] // 2
        return F.pad(x, (side, side, side, side))


def name_convolutions(root: nn.Module) -> list[str]:
    """Give every convolution that keeps a state its own name; returned in order."""
    named = [(name, m) for name, m in root.named_modules() if isinstance(m, CausalConv3d)]
    for name, module in named:
        module.name = name
    return [name for name, module in named if module.keep_frames]


class FrameNorm(nn.GroupNorm):
    """GroupNorm with the statistics of one frame: frames are folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        frames = x.transpose(1, 2).reshape(B * T, C, H, W)
        return super().forward(frames).view(B, T, C, H, W).transpose(1, 2)


class FrameAttention(nn.Module):
    """Attention of one head over the positions of each frame, added to the input."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.group_norm = FrameNorm(groups, channels, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 4, 1).reshape(B * T, 1, H * W, C)
        out = F.scaled_dot_product_attention(
            self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        )
        return x + self.to_out[0](out).view(B, T, H, W, C).permute(0, 4, 1, 2, 3)
