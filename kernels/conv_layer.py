"""Convolution layers: their form, their weights laid out for the matrix product, and their calls.

`PHASES` outputs lie at one place of the grid where a layer upsamples: (row, column, frame), in this
order. Sources: network spec §6, `export/sub_pixel.py`.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vr_trt.kernels.group_norm import Moments

_ALIGNED = 16  # bytes: what the copy engine and a 16-byte load ask of a pixel
_LARGEST_E4M3 = 448.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvForm:
    """A kernel of `taps` frames and `kernel` rows and columns, its strides, and its phases.

    The padding is the VAE's: half a kernel on every side; at the right and the bottom only where
    rows and columns are halved; and nothing at the end of time.
    """

    taps: int = 3
    kernel: int = 3
    stride_t: int = 1
    stride: int = 1
    up_t: int = 1
    up: int = 1

    def __post_init__(self) -> None:
        if self.up == 2 and (self.kernel, self.stride) != (2, 1):
            raise ValueError(f"a sub-pixel convolution has 2x2 taps and no stride: {self}")
        if self.up != 2 and (self.kernel not in (1, 3) or (self.up, self.up_t) != (1, 1)):
            raise ValueError(f"a convolution has 1x1 or 3x3 taps and one phase: {self}")

    @property
    def phases(self) -> int:
        """Outputs at one place of the grid."""
        return self.up_t * self.up * self.up

    @property
    def corner(self) -> int:
        """Where the first tap of the first output lies, counted from the border's corner."""
        return 1 if self.kernel == 1 or self.stride == 2 else 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of outputs, or of the pixel pairs that give four outputs each."""
        if self.up == 2:
            return height + 1, width + 1
        return height // self.stride, width // self.stride

    def frames(self, frames: int, lead: int) -> int:
        """Frames of the grid, of `frames` with `lead` before them."""
        return (frames + lead - self.taps) // self.stride_t + 1

    def shape(self, shape: tuple[int, int, int], lead: int) -> tuple[int, int, int]:
        """Frames, rows and columns of the output of an input of `shape`."""
        frames, height, width = shape
        rows, columns = (2 * height, 2 * width) if self.up == 2 else self.grid(height, width)
        return self.up_t * self.frames(frames, lead), rows, columns


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedConv:
    """A layer's weights: [PHASES N, taps kernel kernel C], the channels innermost."""

    form: ConvForm
    channels: int  # C of the input, padded with zeros to whole 16-byte words
    outputs: int  # N
    weight: "Tensor"
    bias: "Tensor"  # [PHASES N] fp32, the edge's included
    edge: "Tensor | None" = None  # [kernel kernel, PHASES N] fp32: to take away outside the picture
    dequantise: "Tensor | None" = None  # [PHASES N] fp32: scale of the weights times the input's


@dataclass(frozen=True, kw_only=True, slots=True)
class Prologue:
    """The norm, and SiLU, that the input has yet to go through; its border need not be zero."""

    scale_shift: "Tensor"  # [T, 2, C] fp32
    past: "Tensor | None" = None  # [LEAD, 2, C] fp32: of the frames before
    silu: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Extras:
    """What a call of a convolution may have beside input, weights and output."""

    past: "Tensor | None" = None  # [LEAD, H + 2, W + 2, C]: the frames before x
    lead: int | None = None  # frames before x[0]; copies of x[0] where there is no past
    prologue: Prologue | None = None
    residual: "Tensor | None" = None  # added; may be the output itself
    moments: "Moments | None" = None  # filled with those of the output

    def lead_of(self, conv: PackedConv) -> int:
        """How many frames before x[0] the first output reads."""
        if self.past is not None:
            return len(self.past)
        return conv.form.taps - 1 if self.lead is None else self.lead


PLAIN = Extras()


def bordered(
    frames: int, height: int, width: int, channels: int, like: "Tensor"
) -> "Tensor":  # [F, H + 2, W + 2, C]
    """Empty pictures of `like`'s dtype and device in a border of zeros."""
    return like.new_zeros(frames, height + 2, width + 2, channels)


def inside(x: "Tensor") -> "Tensor":  # [F, H + 2, W + 2, C] -> [F, H, W, C]
    """The pictures without their border."""
    return x[:, 1:-1, 1:-1]


def check_call(x: "Tensor", conv: PackedConv, out: "Tensor", extras: Extras) -> None:
    """TypeError or ValueError for tensors that the kernel of `conv3d` would read wrongly."""
    if x.dtype != conv.weight.dtype:
        raise TypeError(f"conv3d: pictures are {x.dtype}, weights {conv.weight.dtype}")
    if x.ndim != 4 or x.shape[3] != conv.channels or not x.is_contiguous():
        raise ValueError(f"conv3d takes [T, H + 2, W + 2, {conv.channels}], not {tuple(x.shape)}")
    lead = extras.lead_of(conv)
    wanted = conv.form.shape((len(x), x.shape[1] - 2, x.shape[2] - 2), lead)
    if out.shape != (*wanted, conv.outputs) or out.stride(3) != 1:
        raise ValueError(f"conv3d gives {(*wanted, conv.outputs)}, not {tuple(out.shape)}")
    if x.shape[1:].numel() >= 2**31 or out.stride(0) >= 2**31:
        raise ValueError(f"a frame of 2^31 elements or more: {tuple(x.shape)}, {tuple(out.shape)}")
    past, residual, tables = extras.past, extras.residual, extras.prologue
    if past is not None and (past.shape[1:] != x.shape[1:] or not past.is_contiguous()):
        raise ValueError(f"the past {tuple(past.shape)} is not like {tuple(x.shape)}")
    if past is not None and past.dtype != x.dtype:
        raise TypeError(f"the past is {past.dtype}, the present {x.dtype}")
    if residual is not None and (residual.shape, residual.stride(), residual.dtype) != (
        out.shape, out.stride(), out.dtype,
    ):  # fmt: skip
        raise ValueError(f"the residual {tuple(residual.shape)} lies unlike the output")
    if tables is not None and past is not None and tables.past is None:
        raise ValueError("the past of a convolution with a prologue wants scale and shift too")


def pack_conv(
    weight: "Tensor",  # [PHASES N, C, taps, kernel, kernel]
    bias: "Tensor",  # [PHASES N]
    form: ConvForm,
    dtype: "torch.dtype",
) -> PackedConv:
    """Lay out a layer of PyTorch's; computed in fp32 and cast at the end."""
    import torch

    if tuple(weight.shape[2:]) != (form.taps, form.kernel, form.kernel):
        raise ValueError(f"weights of {tuple(weight.shape)} are not of {form}")
    rows, channels = weight.shape[:2]
    padded = padded_channels(channels, dtype)
    packed = torch.zeros(rows, *weight.shape[2:], padded, device=weight.device)
    packed[..., :channels] = weight.float().permute(0, 2, 3, 4, 1)
    return PackedConv(
        form=form,
        channels=padded,
        outputs=rows // form.phases,
        weight=packed.flatten(1).to(dtype),
        bias=bias.float().clone(),
    )


def pack_sub_pixel(
    weight: "Tensor",  # [(row, column, frame, N), C or C + 1, taps, 2, 2]
    bias: "Tensor",  # [(row, column, frame, N)]
    channels: int,  # C
    dtype: "torch.dtype",
) -> PackedConv:
    """Lay out a layer of `export/sub_pixel.py`.

    Its last channel, if there is one more than C, is one in the picture and zero around it: it
    becomes a part of the bias that a tap outside the picture takes away again.
    """
    frames = len(weight) // (4 * channels)
    form = ConvForm(taps=weight.shape[2], kernel=2, up_t=frames, up=2)
    packed = pack_conv(weight[:, :channels], bias, form, dtype)
    if weight.shape[1] == channels:
        return packed
    edge = weight[:, channels].float().sum(1).flatten(1).T.contiguous()  # frames are never outside
    return replace(packed, bias=packed.bias + edge.sum(0), edge=edge)


def padded_channels(channels: int, dtype: "torch.dtype") -> int:
    """The channels that a picture of `channels` is stored with: whole 16-byte words."""
    step = _ALIGNED // dtype.itemsize
    return -(-channels // step) * step


def quantise(conv: PackedConv, input_scale: float) -> PackedConv:
    """`conv` in E4M3 with one scale for each output channel, for inputs that are x / input_scale."""
    import torch

    wide = conv.weight.float()
    scale = (wide.abs().amax(1) / _LARGEST_E4M3).clamp_min(torch.finfo(torch.float32).tiny)
    weight = (wide / scale[:, None]).to(torch.float8_e4m3fn)
    if conv.channels % _ALIGNED:
        raise ValueError(f"fp8 pixels of {conv.channels} channels are not whole 16-byte words")
    return replace(conv, weight=weight, dequantise=scale * input_scale)


def unpack(conv: PackedConv) -> "Tensor":
    """The weights as PyTorch's convolution takes them, in fp32: [PHASES N, C, taps, k, k]."""
    form = conv.form
    wide = conv.weight.float().view(-1, form.taps, form.kernel, form.kernel, conv.channels)
    return wide.permute(0, 4, 1, 2, 3).contiguous()
