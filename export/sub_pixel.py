"""Upsampling as one convolution on the small grid: pixel shuffle and 3x3x3 in a single step.

The checkpoint upsamples by a 1x1x1 convolution to 4r times the channels, a pixel shuffle, and a
3x3x3 convolution at the high resolution. Each output pixel therefore depends, linearly, on two
low-resolution rows, two columns and two frames (three where time is not doubled): 8 or 12 taps in
place of 27 at the high resolution and the 1x1x1.

Along an axis of n low-resolution pixels there are n + 1 neighbour pairs (the outermost half in the
zero padding), and pair g gives the outputs 2g - 1 and 2g. So one convolution with a kernel of two
over the padded input, shuffled, gives the outputs -1 .. 2n, and the first and last are cut off.
Source: design §3, network spec §6. `sub_pixel_weights` folds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.export.causal import Stream

# For an output phase: which (low-resolution tap, sub-pixel phase) each of the 3 kernel taps reads.
Reads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
ROW_READS: tuple[Reads, Reads] = (
    ((0, 0), (0, 1), (1, 0)),  # output 2g - 1: the second sub-pixel of the pair's first pixel
    ((0, 1), (1, 0), (1, 1)),  # output 2g: the first sub-pixel of the pair's second pixel
)
# Time doubled, from the frames (t - 1, t): outputs 2t and 2t + 1.
STEP_READS: tuple[Reads, Reads] = (((0, 0), (0, 1), (1, 0)), ((0, 1), (1, 0), (1, 1)))
# At a shot's start output frame 1 is dropped, and frame 0 stands for what lies before it.
FIRST_READS: tuple[Reads] = (((0, 0), (0, 0), (0, 0)),)
SECOND_READS: tuple[Reads, Reads] = (((0, 0), (0, 0), (1, 0)), ((0, 0), (1, 0), (1, 1)))
# Time kept: three low-resolution frames.
KEEP_READS: tuple[Reads] = (((0, 0), (1, 0), (2, 0)),)


def sub_pixel_weights(
    upscale: tuple[Tensor, Tensor],  # [4 r C, C, 1, 1, 1], [4 r C]
    conv: Tensor,  # [C, C, 3, 3, 3]
    reads: Sequence[Reads],
) -> Tensor:
    """Fold both convolutions: [(row, column, frame, C), C + 1, taps, 2, 2].

    The last input channel is one inside the picture and zero in the padding: it carries the bias
    of `upscale`, which must not leak in from outside.
    """
    width = conv.shape[0]
    # [row, column, frame, C, C + 1]
    low = torch.cat([upscale[0][:, :, 0, 0, 0], upscale[1][:, None]], 1)
    low = low.view(2, 2, -1, width, width + 1)
    taps = 1 + max(tap for phase in reads for tap, _ in phase)
    shape = (2, 2, len(reads), width, width + 1, taps, 2, 2)
    out = torch.zeros(shape, dtype=conv.dtype)
    for dt, dh, dw in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
        product = conv[:, :, dt, dh, dw] @ low  # [row, column, frame, C, C + 1]
        for row, column, frame in torch.cartesian_prod(
            torch.arange(2), torch.arange(2), torch.arange(len(reads))
        ).tolist():
            (t, z), (h, x), (w, y) = (
                reads[frame][dt], ROW_READS[row][dh], ROW_READS[column][dw],
            )  # fmt: skip
            out[row, column, frame, :, :, t, h, w] += product[x, y, z]
    return out.flatten(0, 3)


class SubPixelConv(nn.Module):
    """One set of folded weights: [1, C, taps + n, H, W] to [1, C, r (n + 1), 2 H, 2 W]."""

    def __init__(self, width: int, frames: int, taps: int) -> None:
        super().__init__()
        self.frames = frames
        self.weight = nn.Parameter(torch.empty(4 * frames * width, width + 1, taps, 2, 2))
        self.bias = nn.Parameter(torch.empty(4 * frames * width))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[1] > x.shape[1]:
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        x = F.pad(x, (1, 1, 1, 1))
        if self.weight.shape[2] == 1:
            x = F.conv2d(x[:, :, 0], self.weight[:, :, 0], self.bias).unsqueeze(2)
        else:
            x = F.conv3d(x, self.weight, self.bias)
        B, _, T, H, W = x.shape
        x = x.view(B, 2, 2, self.frames, -1, T, H, W)
        x = x.permute(0, 4, 5, 3, 6, 1, 7, 2)  # B, C, T, frame, H, row, W, column
        x = x.reshape(B, x.shape[1], T * self.frames, 2 * H, 2 * W)
        return x[..., 1:-1, 1:-1]


class SubPixelUpsample(nn.Module):
    """The folded `Upsample`. Of a picture only the first frame's weights are needed."""

    def __init__(self, width: int, *, time: bool, video: bool) -> None:
        super().__init__()
        self.name = ""
        self.time, self.video = time, video
        self.keep_frames = (1 if time else 2) if video else 0
        if time or not video:
            self.first = SubPixelConv(width, 1, 1)
        if video and time:
            self.second = SubPixelConv(width, 2, 2)
        if video:
            self.step = SubPixelConv(width, 2 if time else 1, 2 if time else 3)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if not self.video:
            return self.first(x)
        if not self.time:
            return self.step(stream.extend(self.name, x, 2, 2))
        if not stream.starts:
            return self.step(stream.extend(self.name, x, 1, 1))
        stream.next[self.name] = x[:, :, -1:]
        parts = [self.first(x[:, :, :1]), self.second(x[:, :, :2])]
        if x.shape[2] > 2:
            parts.append(self.step(x[:, :, 1:]))
        return torch.cat(parts, 2)
