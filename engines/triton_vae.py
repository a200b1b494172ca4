"""The folded VAE on our kernels, for one size: channels last, fixed buffers, states in place.

A stage is laid out once, as a list of launches on buffers in an arena; running it is going through
the list, which a CUDA graph records. Every picture lies in its border of zeros, and no launch writes
there, so the border is made once in a run unless something else came to lie in it.

Between two convolutions there are two launches: the moments that the first left are merged, and its
output is normed and activated (see `kernels.conv3d` for why that is no prologue). What a layer must
remember is copied from its input once the layer has read its past: a buffer for each state, rather
than two. That is 3 to 4 % of the traffic, and half of the largest memory there is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.vae_layers import CoderLayers
from vr_trt.errors import ModelError
from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.sub_pixel import SubPixelUpsample
from vr_trt.export.vae import Downsample, Encoder, Level, MidBlock, ResBlock
from vr_trt.kernels.conv3d import conv3d
from vr_trt.kernels.conv_few import FewConv, tap_columns, tap_sum
from vr_trt.kernels.conv_layer import PLAIN, Extras, PackedConv, Prologue, bordered, inside
from vr_trt.kernels.conv_sizes import conv_tiles, sizes_for, tuned_sizes
from vr_trt.kernels.frame_attention import frame_attention
from vr_trt.kernels.group_norm import Moments, activate, scale_shift
from vr_trt.kernels.tuning import capability_of

Call = Literal["image", "start", "step"]
Size = tuple[int, int, int]  # frames, rows, columns of the coder's input


class TritonCoderStage:
    """A `StaticStage`: one call of a coder on an input of one size.

    `x [1, 3, F, H, W]` to `latent [1, 16, T, h, w]`, or back, contiguous, in the arena; `state.*`
    and `next.*` are the same tensors. Stages may share `states`, which are made where they are
    missing; and, if they run one after the other, the memory of `arena`. Laid out in an arena
    without memory, a stage is shapes only: what it would launch, and what it would hold.
    """

    def __init__(
        self, network: Coder, layers: CoderLayers, call: Call, size: Size,
        states: dict[str, Tensor], arena: Arena | None = None,
    ) -> None:  # fmt: skip
        self.arena = arena or own_arena(network, layers, call, size)
        walk = _Walk(network, layers, states, self.arena, starts=call != "step")
        came, result = ("x", "latent") if isinstance(network, Encoder) else ("latent", "x")
        channels = network.conv_in.in_channels
        given = self.arena.take((1, channels, *size), layers.dtype)
        x = bordered(*size, layers.convs["conv_in"].channels, walk.like)
        walk.copy(_as_clip(inside(x)[..., :channels]), given)
        y = _as_clip(walk.coder(network, x))
        made = self.arena.take(tuple(y.shape), y.dtype)
        walk.copy(made, y)
        self.launches, self.used = walk.launches, frozenset(walk.used)
        self._inputs, self._outputs = {came: given}, {result: made}
        names = network.states if call != "image" else []
        if call == "step":
            self._inputs |= {f"state.{name}": states[name] for name in names}
        self._outputs |= {f"next.{name}": states[name] for name in names}

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return self._outputs

    @torch.no_grad()
    def run(self) -> None:
        for launch in self.launches:
            launch()


def own_arena(network: Coder, layers: CoderLayers, call: Call, size: Size) -> Arena:
    """An arena with the memory that this one stage needs, on the layers' device.

    Laid out for that device's chip: shapes alone would be tuned as the interpreter's are.
    """
    if layers.chip is None and layers.device.type == "cuda":
        layers = replace(layers, chip=capability_of(layers.device))
    shapes = TritonCoderStage(network, layers, call, size, {}, Arena())
    return Arena(torch.empty(shapes.arena.size, dtype=torch.uint8, device=layers.device))


def _as_clip(x: Tensor) -> Tensor:
    """[F, H, W, C] as [1, C, F, H, W], the same memory."""
    return x.permute(3, 0, 1, 2)[None]


class _Walk:
    """Goes through a network and writes down what to launch; it computes nothing."""

    def __init__(
        self, network: Coder, layers: CoderLayers, states: dict[str, Tensor], arena: Arena,
        *, starts: bool,
    ) -> None:  # fmt: skip
        self.launches: list[partial[object]] = []
        self.used: set[str] = set()  # convolutions that are launched, by name
        self.like = torch.empty(0, dtype=layers.dtype, device=arena.device)
        self._names = {id(module): name for name, module in network.named_modules()}
        self._layers, self._states, self._starts = layers, states, starts
        self._arena = arena
        self._moments: Moments | None = None  # of the picture that was written last

    def picture(
        self, frames: int, height: int, width: int, channels: int,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """A buffer [F, H + 2, W + 2, C] whose border is zero when it is used."""
        shape = (frames, height + 2, width + 2, channels)
        x, is_clean = self._arena.take_bordered(shape, dtype or self.like.dtype)
        if not is_clean:
            self._launch(_clear_border, x)
        return x

    def copy(self, to: Tensor, source: Tensor) -> None:
        """From one layout to another: an end of the network."""
        self._launch(Tensor.copy_, to, source)

    def coder(self, network: Coder, x: Tensor) -> Tensor:
        """The whole network: [F, H, W, C]."""
        if isinstance(network, Encoder):
            parts: list[nn.Module] = [*network.down_blocks, network.mid_block]
        else:
            parts = [network.mid_block, *network.up_blocks]
        x = self._conv(network.conv_in, x)
        for part in parts:
            assert isinstance(part, Level | MidBlock)
            x = self._level(part, x) if isinstance(part, Level) else self._mid(part, x)
        x = self._activated(network.conv_norm_out, x, network.conv_out, over=True)
        return inside(self._conv(network.conv_out, x, moments=False))

    def _level(self, level: Level, x: Tensor) -> Tensor:
        for blocks in level.children():
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                if isinstance(block, ResBlock):
                    x = self._res_block(block, x)
                elif isinstance(block, Downsample):
                    x = self._released(x, self._conv(block.conv, x))
                else:
                    assert isinstance(block, SubPixelUpsample)
                    x = self._released(x, self._upsample(block, x))
        return x

    def _mid(self, mid: MidBlock, x: Tensor) -> Tensor:
        first, second = mid.resnets
        attention = mid.attentions[0]
        assert isinstance(first, ResBlock) and isinstance(second, ResBlock)
        assert isinstance(attention, FrameAttention)
        x = self._attention(attention, self._res_block(first, x))
        return self._res_block(second, x)

    def _res_block(self, block: ResBlock, x: Tensor) -> Tensor:
        """The sum is written over x, or over what the shortcut made of it."""
        activated = self._activated(block.norm1, x, block.conv1)
        y = self._released(activated, self._conv(block.conv1, activated))
        activated = self._activated(block.norm2, y, block.conv2, over=True)
        if activated is not y:
            self._released(y, activated)
        if hasattr(block, "conv_shortcut"):
            x = self._released(x, self._conv(block.conv_shortcut, x, moments=False))
        return self._released(activated, self._conv(block.conv2, activated, plus=x))

    def _attention(self, layer: FrameAttention, x: Tensor) -> Tensor:
        """Added to x in place; its norm is the prologue of the product that makes q, k and v."""
        frames, height, width, channels = inside(x).shape
        qkv = self._arena.take((frames, height, width, 3 * channels), x.dtype)
        attended = self.picture(frames, height, width, channels)
        name = self._names[id(layer)]
        to_qkv, to_out = (self._packed(f"{name}.{part}") for part in ("qkv", "to_out"))
        norm = Prologue(scale_shift=self._scale_shift(layer.group_norm), silu=False)
        self._launch(conv3d, x, to_qkv, qkv, Extras(prologue=norm))
        self._launch(frame_attention, qkv, inside(attended))
        self._arena.give_back(qkv)
        self._moments = self._room(x, to_out, frames)
        extras = Extras(residual=inside(x), moments=self._moments)
        self._launch(conv3d, attended, to_out, inside(x), extras)
        return self._released(attended, x)

    def _conv(
        self, layer: CausalConv3d, x: Tensor, *, plus: Tensor | None = None, moments: bool = True
    ) -> Tensor:
        """A layer's output, or its sum with the picture `plus`, in place; and its moments."""
        name = self._names[id(layer)]
        conv, extras = self._packed(name), Extras(past=self._past(name, layer.keep_frames, x))
        shape = conv.form.shape(_size(x), extras.lead_of(conv))
        out = self.picture(*shape, conv.outputs) if plus is None else plus
        self._moments = self._room(x, conv, shape[0]) if moments else None
        residual = None if plus is None else inside(plus)
        extras = replace(extras, residual=residual, moments=self._moments)
        if name in self._layers.few:
            self._by_taps(self._layers.few[name], x, inside(out), extras.past)
        else:
            self._launch(conv3d, x, conv, inside(out), extras)
        self._remember(name, layer.keep_frames, x)
        return out

    def _by_taps(self, few: FewConv, x: Tensor, out: Tensor, past: Tensor | None) -> None:
        """A layer to very few channels, which has neither moments nor a residual."""
        columns = self._arena.take(few.room(*_size(x)), torch.float32)
        self._launch(tap_columns, x, few, columns, past)
        self._launch(tap_sum, columns, few, out)
        self._arena.give_back(columns)

    def _upsample(self, layer: SubPixelUpsample, x: Tensor) -> Tensor:
        """At a shot's start the first frames have weights of their own."""
        name = self._names[id(layer)]
        if not layer.video:
            parts = [("first", x, Extras())]
        elif not (layer.time and self._starts):
            parts = [("step", x, Extras(past=self._past(name, layer.keep_frames, x)))]
        else:
            parts = [("first", x[:1], Extras()), ("second", x[:2], Extras(lead=0))]
            parts += [("step", x[1:], Extras(lead=0))] if len(x) > 2 else []
        convs = [self._packed(f"{name}.{part}") for part, _, _ in parts]
        shapes = [
            conv.form.shape(_size(part), extras.lead_of(conv))
            for conv, (_, part, extras) in zip(convs, parts, strict=True)
        ]
        frames = sum(shape[0] for shape in shapes)
        out = self.picture(frames, *shapes[0][1:], convs[0].outputs)
        self._moments = self._room(x, convs[0], frames)
        first = 0
        for conv, (_, part, extras), shape in zip(convs, parts, shapes, strict=True):
            now = slice(first, first + shape[0])
            written = Moments(values=self._moments.values[now], counts=self._moments.counts[now])
            self._launch(conv3d, part, conv, inside(out)[now], replace(extras, moments=written))
            first += shape[0]
        self._remember(name, layer.keep_frames, x)
        return out

    def _activated(
        self, norm: FrameNorm, x: Tensor, layer: CausalConv3d, *, over: bool = False
    ) -> Tensor:
        """Norm and SiLU of x, which was written last, as `layer` takes it; `over` x if it may be."""
        name = self._names[id(layer)]
        dtype = self._packed(name).weight.dtype
        if not over or dtype != x.dtype:
            out = self.picture(*_size(x), x.shape[3], dtype)
        else:
            out = x
        step, table = self._layers.steps.get(name, 1.0), self._scale_shift(norm)
        self._launch(activate, inside(x), table, inside(out), step=step)
        return out

    def _scale_shift(self, norm: FrameNorm) -> Tensor:
        """Scale and shift of the picture that was written last, whose moments are then free."""
        moments, weights = self._moments, self._layers.norms[self._names[id(norm)]]
        assert moments is not None
        frames, _, _, channels = moments.values.shape
        table = self.like.new_zeros(frames, 2, channels, dtype=torch.float32)
        self._launch(scale_shift, moments, weights, table)
        for room in (moments.values, moments.counts):
            self._arena.give_back(room)
        self._moments = None
        return table

    def _room(self, x: Tensor, conv: PackedConv, frames: int) -> Moments:
        """Room for the moments of `frames` frames that `conv` makes of x."""
        chip = self._layers.chip
        sizes = (
            tuned_sizes(x, conv, PLAIN) if chip is None else sizes_for(chip, conv, PLAIN, len(x))
        )
        tiles = conv_tiles(conv, x.shape[1] - 2, x.shape[2] - 2, sizes)
        return Moments(
            values=self._arena.take((frames, tiles, 2, conv.outputs), torch.float32),
            counts=self._arena.take((frames, tiles), torch.float32),
        )

    def _packed(self, name: str) -> PackedConv:
        self.used.add(name)
        return self._layers.convs[name]

    def _past(self, name: str, keep: int, x: Tensor) -> Tensor | None:
        """The frames before x; at a shot's start there are none."""
        return None if self._starts or not keep else self._state(name, keep, x)

    def _remember(self, name: str, keep: int, x: Tensor) -> None:
        """Make the last frames of the past and x the past of the next call."""
        if keep:
            self._launch(_keep_last, self._state(name, keep, x), x, self._starts)

    def _state(self, name: str, keep: int, x: Tensor) -> Tensor:
        if name not in self._states:
            self._states[name] = x.new_zeros(keep, *x.shape[1:])
        state = self._states[name]
        if (state.shape[1:], state.dtype) != (x.shape[1:], x.dtype):
            raise ModelError(
                f"another stage keeps {name} as {list(state.shape)} {state.dtype}, and this one as "
                f"{x.dtype}: build the start and the step together"
            )
        return state

    def _launch(self, function: Callable[..., object], *arguments: object, **more: object) -> None:
        self.launches.append(partial(function, *arguments, **more))

    def _released(self, x: Tensor, result: Tensor) -> Tensor:
        """`result`; the buffer x is free from here on."""
        self._arena.give_back(x)
        return result


def _size(x: Tensor) -> Size:
    """Frames, rows and columns inside the border."""
    return len(x), x.shape[1] - 2, x.shape[2] - 2


def _clear_border(x: Tensor) -> None:
    """Zero around every picture of x [F, H + 2, W + 2, C]."""
    bits = x.view(torch.uint8)  # of any dtype
    bits[:, :: x.shape[1] - 1].zero_()
    bits[:, 1:-1, :: x.shape[2] - 1].zero_()


def _keep_last(state: Tensor, x: Tensor, starts: bool) -> None:
    """Before a shot there is its first frame, again and again."""
    keep, frames = len(state), len(x)
    for i in range(keep):
        last = frames - keep + i
        if last >= 0 or starts:
            state[i].copy_(x[max(last, 0)])
        else:
            state[i].copy_(state[i + frames])
