"""The VAE's convolutions as a step of four frames launches them, two at a time, in bf16 and fp8.

The rival is cuDNN in bf16, given the past and the present already put together, in both layouts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from triton import next_power_of_2

from vr_trt.bench.case import OURS, Case, Tunable, Way, sized
from vr_trt.bench.cases.networks import half, normal, poisoned
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.kernels.conv3d import conv3d, conv3d_reference
from vr_trt.kernels.conv_few import MOST_OUTPUTS, conv_few, pack_few
from vr_trt.kernels.conv_layer import (
    ConvForm,
    Extras,
    PackedConv,
    bordered,
    inside,
    pack_conv,
    quantise,
    unpack,
)
from vr_trt.kernels.conv_sizes import kind_of
from vr_trt.kernels.tuning import tuned

STEP = 0.05  # of an fp8 input: 22 at most
BY_TAPS = f"{OURS}, by taps"
# Two frames a program, in 224 KiB of shared memory.
PAIRED = {"FRAMES": 2, "BLOCK_M": 128, "BLOCK_N": 128, "PARTS": 4, "num_warps": 8, "num_stages": 2}
LIMIT = 5e-3  # a step of bf16
# E4M3's inputs are what they are and products exact; of the sums sm_90 keeps about 14 bits, with which
# 2 % were lost elsewhere over K = 4096. Rounding the inputs to E4M3 costs 3 to 4 %.
FP8_LIMIT = 2e-2


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer at its place in the network."""

    form: ConvForm
    channels: int
    outputs: int
    size: tuple[int, int, int]  # frames, rows, columns of the input
    importance: int = 1
    fp8: bool = False
    residual: bool = False

    @property
    def lead(self) -> int:
        """Frames of the past."""
        return self.form.taps - self.form.stride_t

    @property
    def results(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the output."""
        return self.form.shape(self.size, self.lead)

    @property
    def work(self) -> Work:
        """The past's frames count as inputs; the border does not."""
        frames, rows, columns = self.results
        phases, taps = self.form.phases, self.form.taps * self.form.kernel**2
        elements = frames * rows * columns * self.outputs
        pixels = self.size[1] * self.size[2] * (self.size[0] + self.lead)
        width = 1 if self.fp8 else 2
        return Work(
            unit="fp8" if self.fp8 else "wide",
            flops=2.0 * elements * taps * self.channels,
            bytes=width * self.channels * float(pixels + taps * phases * self.outputs)
            + 2.0 * elements * (2 if self.residual else 1),
        )


# The widest and the most frequent of encoder and decoder; spec §6, sizes of 720p and 1080p.
CUBE, STRIDED = ConvForm(), ConvForm(stride_t=2, stride=2)
UP, UP_TIME = ConvForm(taps=3, kernel=2, up=2), ConvForm(taps=2, kernel=2, up=2, up_t=2)
LAYERS = {
    "128-128 720p": Layer(form=CUBE, channels=128, outputs=128, size=(2, 720, 1280), importance=0),
    "128-128 1080p": Layer(form=CUBE, channels=128, outputs=128, size=(2, 1088, 1920)),
    "256-128 720p": Layer(form=CUBE, channels=256, outputs=128, size=(2, 720, 1280)),
    "256-256 half of 720p": Layer(form=CUBE, channels=256, outputs=256, size=(2, 360, 640)),
    "512-512 quarter of 720p": Layer(form=CUBE, channels=512, outputs=512, size=(2, 180, 320)),
    "256-256 up to 720p": Layer(form=UP, channels=256, outputs=256, size=(2, 360, 640)),
    "512-512 up in time": Layer(form=UP_TIME, channels=512, outputs=512, size=(1, 180, 320)),
    "128-3 720p": Layer(form=CUBE, channels=128, outputs=3, size=(2, 720, 1280), importance=2),
    "256-256 down": Layer(
        form=STRIDED, channels=256, outputs=256, size=(2, 360, 640), importance=2
    ),
    "128-128 720p fp8": Layer(form=CUBE, channels=128, outputs=128, size=(2, 720, 1280), fp8=True),
    "512-512 quarter of 720p fp8": Layer(
        form=CUBE, channels=512, outputs=512, size=(2, 180, 320), fp8=True
    ),
}
AWKWARD = {
    "one pixel": Layer(form=CUBE, channels=16, outputs=8, size=(1, 1, 1)),
    "odd": Layer(form=CUBE, channels=24, outputs=40, size=(3, 67, 129)),
    "residual": Layer(form=CUBE, channels=32, outputs=48, size=(2, 9, 70), residual=True),
    "3 outputs": Layer(form=CUBE, channels=128, outputs=3, size=(4, 33, 270)),
}
SMALL = {"small": Layer(form=CUBE, channels=16, outputs=8, size=(2, 3, 5))}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    layer: Layer
    conv: PackedConv
    x: Tensor  # [T, H + 2, W + 2, C] bf16 or E4M3
    past: Tensor  # [lead, H + 2, W + 2, C]
    residual: Tensor | None  # [F, H', W', N] bf16
    out: Tensor  # [F, H', W', N] in a border

    @property
    def extras(self) -> Extras:
        return Extras(past=self.past, residual=self.residual)


def make(layer: Layer) -> Callable[[str, int], Inputs]:
    """Random weights and pictures, and the output filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        dtype, form = half(device), layer.form
        taps = form.taps, form.kernel, form.kernel
        fan_in = layer.channels * form.taps * form.kernel**2
        rows = layer.outputs * form.phases
        weight = normal(device, seed, rows, layer.channels, *taps).float() * fan_in**-0.5
        conv = pack_conv(weight, normal(device, seed + 1, rows), form, dtype)
        conv = quantise(conv, STEP) if layer.fp8 else conv
        frames, height, width = layer.size

        def pictures(count: int, seed: int) -> Tensor:
            # Not by new_zeros, which E4M3 lacks on some devices: the border is zero all the same.
            like = torch.empty(0, dtype=dtype, device=device)
            wide = bordered(count, height, width, conv.channels, like)
            noise = normal(device, seed, count, height, width, layer.channels)
            inside(wide)[..., : layer.channels].copy_(noise)
            return (wide.float() / STEP).to(torch.float8_e4m3fn) if layer.fp8 else wide

        results = layer.results
        room = torch.full(
            (results[0], results[1] + 2, results[2] + 2, layer.outputs),
            torch.nan, dtype=dtype, device=device,
        )  # fmt: skip
        residual = None
        if layer.residual:
            residual = torch.zeros_like(room)
            inside(residual).copy_(normal(device, seed + 4, *results, layer.outputs))
            residual = inside(residual)
        return Inputs(
            layer=layer,
            conv=conv,
            x=pictures(frames, seed + 2),
            past=pictures(layer.lead, seed + 3),
            residual=residual,
            out=inside(room),
        )

    return inputs


def ours_with(sizes: Mapping[str, int] | None) -> Callable[[Inputs], Callable[[], Tensor]]:
    """The kernel, with the tuned sizes or others; the past is read where it lies."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        out = poisoned(given.out)
        return lambda: conv3d(given.x, given.conv, out, given.extras, sizes)

    return way


def by_taps(sizes: Mapping[str, int] | None) -> Way:
    """Few outputs, by one product for all taps of the picture and a sum."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        few, x, out = pack_few(given.conv), given.x, poisoned(given.out)
        room = few.room(*given.layer.size)
        columns = torch.full(room, torch.nan, dtype=torch.float32, device=x.device)
        return lambda: conv_few(x, few, out, columns, given.past, sizes)

    return way


def few_with(sizes: Mapping[str, int]) -> Way:
    """As the VAE takes a layer to few outputs, were these the row of `conv_few.toml`."""
    by_sizes, by_kernel = by_taps(sizes), ours_with(None)

    def way(given: Inputs) -> Callable[[], Tensor]:
        taken = by_sizes if given.layer.outputs <= sizes["UP_TO"] else by_kernel
        return taken(given)

    return way


def cudnn(layout: torch.memory_format) -> Callable[[Inputs], Callable[[], Tensor]]:
    """PyTorch's convolution in bf16, then bias, phases put in place and residual."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        form = given.conv.form
        scale = given.conv.dequantise
        weight = unpack(given.conv)
        if scale is not None:
            weight = weight * scale.view(-1, 1, 1, 1, 1) / STEP
        clip = torch.cat([inside(given.past).float(), inside(given.x).float()])
        clip = clip * (STEP if given.layer.fp8 else 1)
        clip = clip.permute(3, 0, 1, 2)[None].to(given.out.dtype).contiguous(memory_format=layout)
        weight = weight.to(given.out.dtype).contiguous(memory_format=layout)
        bias, strides = (
            given.conv.bias.to(given.out.dtype),
            (form.stride_t, form.stride, form.stride),
        )
        strided = form.stride == 2
        pad = (0, 0, 0) if strided or form.kernel == 1 else (0, 1, 1)
        clip = F.pad(clip, (0, 1, 0, 1)).contiguous(memory_format=layout) if strided else clip

        def call() -> Tensor:
            y = F.conv3d(clip, weight, bias, strides, pad)[0]
            if form.phases > 1:
                y = y.unflatten(0, (form.up, form.up, form.up_t, -1)).permute(4, 2, 5, 0, 6, 1, 3)
                y = y.flatten(4, 5).flatten(2, 3).flatten(0, 1)[:, 1:-1, 1:-1]
            else:
                y = y.permute(1, 2, 3, 0)
            return y if given.residual is None else y + given.residual

        return without_gradients(call)

    return way


def reference(given: Inputs) -> Sequence[Tensor]:
    """In fp32, TF32 inside: ten times finer than bf16."""
    return (conv3d_reference(given.x, given.conv, given.extras),)


def case(label: str, layer: Layer, timed: bool) -> Case:
    """One layer."""
    by_others: dict[str, Way] = {}
    if layer.outputs <= MOST_OUTPUTS:
        by_others[BY_TAPS] = by_taps(None)
    return Case(
        name=f"conv3d {label}",
        kernel="conv3d",
        importance=layer.importance,
        work=layer.work,
        limit=FP8_LIMIT if layer.fp8 else LIMIT,
        make=make(layer),
        reference=reference,
        ways={
            OURS: ours_with(None),
            **by_others,
            "cuDNN channels last": cudnn(torch.channels_last_3d),
            "cuDNN": cudnn(torch.contiguous_format),
        },
        shape={"channels": layer.channels, "outputs": layer.outputs}
        | dict(zip(("frames", "rows", "columns"), layer.size, strict=True)),
        timed=timed,
        tunable=_tunable(layer),
    )


def _tunable(layer: Layer) -> Tunable:
    """Block sizes; of a layer to few outputs also whether it goes by taps."""
    if layer.outputs <= MOST_OUTPUTS:
        return Tunable(table="conv_few", key={}, options=partial(tuned, "conv_few"), way=few_with)
    outputs = min(256, max(16, next_power_of_2(layer.outputs)))  # as the table counts them
    pairs = layer.form == CUBE and layer.size[0] % 2 == 0
    key: dict[str, Any] = {
        "outputs": outputs, "bits": 8 if layer.fp8 else 16, "prologue": 0, "frames": 1 + pairs,
        "inputs": 16 if layer.channels <= 16 else 32, "layer": kind_of(layer.form),
    }  # fmt: skip
    starts = [PAIRED | {"BLOCK_K": 128 if layer.fp8 else 64}] if pairs else []
    return Tunable(
        table="conv3d",
        key=key,
        options=partial(tuned, "conv3d", **key),
        way=ours_with,
        starts=starts,
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=LAYERS, awkward=AWKWARD)
