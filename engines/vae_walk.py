"""Goes through a coder of the VAE and writes down what to launch, group of frames by group of frames.

Between two convolutions there are two launches: the moments that the first left are merged, and its
output is normed and activated (see `kernels.conv3d` for why that is no prologue). What a layer must
remember is copied from its input once the layer has read its past: a buffer for each state, rather
than two.

**Groups of frames.** Where the number of frames is two (or, at a shot's start, one) for each latent
of the quarter resolution, the half and the full resolution take that many frames at a time: the
encoder gathers what each group leaves, the decoder goes from each group to its pictures. Nothing but
the causal state couples frames, and states are in place, so what a group reads as its past is what
the group before left: the same numbers to the last bit, and the buffers of two frames.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.vae_layers import CoderLayers
from vr_trt.errors import ModelError
from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.sub_pixel import SubPixelUpsample
from vr_trt.export.vae import Decoder, Downsample, Encoder, MidBlock, ResBlock
from vr_trt.kernels.conv3d import conv3d
from vr_trt.kernels.conv_few import FewConv, tap_columns, tap_sum
from vr_trt.kernels.conv_layer import PLAIN, Extras, PackedConv, Prologue, bordered, inside
from vr_trt.kernels.conv_sizes import conv_tiles, sizes_for, tuned_sizes
from vr_trt.kernels.frame_attention import frame_attention
from vr_trt.kernels.group_norm import Moments, activate, scale_shift

Size = tuple[int, int, int]  # frames, rows, columns
Item = TypeVar("Item")
Module = TypeVar("Module", bound=nn.Module)
FINE = 2  # levels of the highest resolutions, half and full


def groups_of(count: int) -> list[range]:
    """Frames of the quarter resolution, of `count`, that are taken at a time: one."""
    return [range(i, i + 1) for i in range(count)]


@dataclass(frozen=True, slots=True)
class _Room:
    """Where convolutions write frame after frame: pictures in their borders, and their moments."""

    pictures: Tensor
    moments: Moments

    def part(self, first: int, frames: int) -> "_Room":
        now, all_of = slice(first, first + frames), self.moments
        moments = Moments(values=all_of.values[now], counts=all_of.counts[now])
        return _Room(self.pictures[now], moments)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A launch of an upsampling layer, for one frame of its input."""

    conv: PackedConv
    x: Tensor  # the frame, and before it what its taps see that is no past
    extras: Extras

    @property
    def size(self) -> Size:
        """Of what it gives."""
        return self.conv.form.shape(_size(self.x), self.extras.lead_of(self.conv))


class Walk:
    """One call's way through a network on buffers of `arena`; it computes nothing.

    `launches` in order, and the convolutions that they `used`, by name.
    """

    def __init__(
        self, network: Coder, layers: CoderLayers, states: dict[str, Tensor], arena: Arena,
        *, starts: bool,
    ) -> None:  # fmt: skip
        self.launches: list[partial[object]] = []
        self.used: set[str] = set()
        self._like = torch.empty(0, dtype=layers.dtype, device=arena.device)
        self._names = {id(module): name for name, module in network.named_modules()}
        self._layers, self._states, self._starts = layers, states, starts
        self._arena = arena
        self._moments: Moments | None = None  # of the picture that was written last

    def coder(self, network: Coder, given: Tensor) -> Tensor:
        """The whole network, of `given` [1, C, F, H, W]; its result lies in the arena likewise."""
        if isinstance(network, Encoder):
            return self._encoder(network, given)
        return self._decoder(network, given)

    def _encoder(self, network: Encoder, given: Tensor) -> Tensor:
        """The fine levels group by group, all else with what they gathered."""
        *levels, last = network.down_blocks[:FINE]
        halve = _only(last, "downsamplers", Downsample).conv
        frames, rows, columns = given.shape[2:]
        odd = frames % 2  # the first frame of a shot, or a picture, is alone
        groups = groups_of((frames + odd) // 2)
        spans = [range(max(2 * g.start - odd, 0), 2 * g.stop - odd) for g in groups]
        source = self._source(max(map(len, spans)), given)
        scale = 2**FINE
        conv = self._packed(self._names[id(halve)])
        gathered = self._room(
            conv, (frames, 2 * rows // scale, 2 * columns // scale),
            ((frames + odd) // 2, rows // scale, columns // scale),
        )  # fmt: skip
        for group, span in self._in_turn(zip(groups, spans, strict=True)):
            x = self._given(source[: len(span)], given[:, :, span.start : span.stop])
            x = self._conv(network.conv_in, x)
            for level in levels:
                x = self._level(level, x)
            x = self._blocks(last, x)
            self._conv(halve, x, into=gathered.part(group.start, len(group)))
            self._arena.give_back(x)
        x, self._moments = gathered.pictures, gathered.moments
        for level in network.down_blocks[FINE:]:
            x = self._level(level, x)
        x = self._ended(network, self._mid(network.mid_block, x))
        made = self._arena.take(tuple(_as_clip(inside(x)).shape), x.dtype)
        self._launch(Tensor.copy_, made, _as_clip(inside(x)))
        return made

    def _decoder(self, network: Decoder, given: Tensor) -> Tensor:
        """Up to the last doubling of time with all latents, from there on group by group."""
        *levels, last = network.up_blocks[:FINE]
        fine = network.up_blocks[FINE:]
        double = _only(last, "upsamplers", SubPixelUpsample)
        x = self._given(self._source(given.shape[2], given), given)
        x = self._mid(network.mid_block, self._conv(network.conv_in, x))
        for level in levels:
            x = self._level(level, x)
        x = self._blocks(last, x)
        pieces = self._pieces(double, x)
        scale = 2 ** (len(network.up_blocks) - 1)
        rows, columns = (scale * side for side in given.shape[3:])
        frames = sum(piece.size[0] for piece in pieces)
        config = network.config
        made = self._arena.take((1, config.image_channels, frames, rows, columns), x.dtype)
        first = 0
        for group in self._in_turn(groups_of(len(pieces))):
            y = self._written(pieces[group.start : group.stop])
            for level in fine:
                y = self._level(level, y)
            y = self._ended(network, y)
            self._launch(Tensor.copy_, made[:, :, first : first + len(y)], _as_clip(inside(y)))
            self._arena.give_back(y)
            first += len(y)
        self._remember(self._names[id(double)], double.keep_frames, x)
        self._arena.give_back(x)
        return made

    def _in_turn(self, groups: Iterator[Item] | Sequence[Item]) -> Iterator[Item]:
        """The groups of a call's frames: behind the first there is what the one before left."""
        starts = self._starts
        for group in groups:
            yield group
            self._starts = False
        self._starts = starts

    def _source(self, frames: int, given: Tensor) -> Tensor:
        """Pictures for the first layer, in memory of their own: what `given` lacks is zero."""
        _, _, _, height, width = given.shape
        channels = self._packed("conv_in").channels
        return bordered(frames, height, width, channels, self._like)

    def _given(self, x: Tensor, given: Tensor) -> Tensor:
        """`given` [1, C, F, H, W] in x, channels last."""
        self._launch(Tensor.copy_, _as_clip(inside(x)[..., : given.shape[1]]), given)
        return x

    def _ended(self, network: Coder, x: Tensor) -> Tensor:
        """What comes after the last level."""
        table = self._scale_shift(network.conv_norm_out)
        activated = self._activated(table, x, network.conv_out, over=True)
        return self._released(activated, self._conv(network.conv_out, activated, moments=False))

    def _level(self, level: nn.Module, x: Tensor) -> Tensor:
        x = self._blocks(level, x)
        if hasattr(level, "downsamplers"):
            halve = _only(level, "downsamplers", Downsample)
            x = self._released(x, self._conv(halve.conv, x))
        elif hasattr(level, "upsamplers"):
            x = self._released(x, self._upsample(_only(level, "upsamplers", SubPixelUpsample), x))
        return x

    def _blocks(self, level: nn.Module, x: Tensor) -> Tensor:
        """Of one resolution; no norm follows where the step to the next does."""
        blocks = level.resnets
        assert isinstance(blocks, nn.ModuleList)
        steps = hasattr(level, "downsamplers") or hasattr(level, "upsamplers")
        for i, block in enumerate(blocks, 1):
            assert isinstance(block, ResBlock)
            x = self._res_block(block, x, moments=not steps or i < len(blocks))
        return x

    def _mid(self, mid: MidBlock, x: Tensor) -> Tensor:
        first, second = mid.resnets
        attention = mid.attentions[0]
        assert isinstance(first, ResBlock) and isinstance(second, ResBlock)
        assert isinstance(attention, FrameAttention)
        x = self._attention(attention, self._res_block(first, x))
        return self._res_block(second, x)

    def _res_block(self, block: ResBlock, x: Tensor, *, moments: bool = True) -> Tensor:
        """The sum is written over x, or over what the shortcut made of it; then x is free early."""
        table = self._scale_shift(block.norm1)
        plus = x
        if hasattr(block, "conv_shortcut"):
            plus = self._conv(block.conv_shortcut, x, moments=False)
        activated = self._activated(table, x, block.conv1, over=plus is not x)
        if x is not plus and x is not activated:
            self._arena.give_back(x)
        y = self._released(activated, self._conv(block.conv1, activated))
        table = self._scale_shift(block.norm2)
        activated = self._activated(table, y, block.conv2, over=True)
        if y is not activated:
            self._arena.give_back(y)
        total = self._conv(block.conv2, activated, plus=plus, moments=moments)
        return self._released(activated, total)

    def _attention(self, layer: FrameAttention, x: Tensor) -> Tensor:
        """Added to x in place; its norm is the prologue of the product that makes q, k and v."""
        frames, height, width, channels = inside(x).shape
        qkv = self._arena.take((frames, height, width, 3 * channels), x.dtype)
        attended = self._picture(frames, height, width, channels)
        name = self._names[id(layer)]
        to_qkv, to_out = (self._packed(f"{name}.{part}") for part in ("qkv", "to_out"))
        norm = Prologue(scale_shift=self._scale_shift(layer.group_norm), silu=False)
        self._launch(conv3d, x, to_qkv, qkv, Extras(prologue=norm))
        self._launch(frame_attention, qkv, inside(attended))
        self._arena.give_back(qkv)
        self._moments = self._moments_of(to_out, _size(x), frames)
        extras = Extras(residual=inside(x), moments=self._moments)
        self._launch(conv3d, attended, to_out, inside(x), extras)
        return self._released(attended, x)

    def _conv(
        self, layer: CausalConv3d, x: Tensor,
        *, plus: Tensor | None = None, moments: bool = True, into: _Room | None = None,
    ) -> Tensor:  # fmt: skip
        """A layer's output, or its sum with the picture `plus`, in place; and its moments."""
        name = self._names[id(layer)]
        conv, extras = self._packed(name), Extras(past=self._past(name, layer.keep_frames, x))
        size = conv.form.shape(_size(x), extras.lead_of(conv))
        if into is None:
            out = self._picture(*size, conv.outputs) if plus is None else plus
            self._moments = self._moments_of(conv, _size(x), size[0]) if moments else None
        else:
            out, self._moments = into.pictures, into.moments
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
        out = self._written(self._pieces(layer, x))
        self._remember(self._names[id(layer)], layer.keep_frames, x)
        return out

    def _pieces(self, layer: SubPixelUpsample, x: Tensor) -> list[_Piece]:
        """Where time is doubled, one for each frame: at a shot's start the first have own weights."""
        name = self._names[id(layer)]

        def piece(which: str, seen: Tensor, extras: Extras) -> _Piece:
            return _Piece(self._packed(f"{name}.{which}"), seen, extras)

        if not layer.video:
            return [piece("first", x, Extras())]
        past = Extras(past=self._past(name, layer.keep_frames, x))
        if not layer.time:
            return [piece("step", x, past)]
        pieces = [piece("first", x[:1], past) if self._starts else piece("step", x[:1], past)]
        for i in range(1, len(x)):
            which = "second" if self._starts and i == 1 else "step"
            pieces.append(piece(which, x[i - 1 : i + 1], Extras(lead=0)))
        return pieces

    def _written(self, pieces: Sequence[_Piece]) -> Tensor:
        """The frames that `pieces` give, in one picture."""
        size = sum(piece.size[0] for piece in pieces), *pieces[0].size[1:]
        room, first = self._room(pieces[0].conv, _size(pieces[0].x), size), 0
        for piece in pieces:
            part = room.part(first, piece.size[0])
            extras = replace(piece.extras, moments=part.moments)
            self._launch(conv3d, piece.x, piece.conv, inside(part.pictures), extras)
            first += piece.size[0]
        self._moments = room.moments
        return room.pictures

    def _activated(
        self, table: Tensor, x: Tensor, layer: CausalConv3d, *, over: bool = False
    ) -> Tensor:
        """x normed by `table`, and SiLU, as `layer` takes it; `over` x if it may be."""
        name = self._names[id(layer)]
        dtype = self._packed(name).weight.dtype
        if not over or dtype != x.dtype:
            out = self._picture(*_size(x), x.shape[3], dtype)
        else:
            out = x
        step = self._layers.steps.get(name, 1.0)
        self._launch(activate, inside(x), table, inside(out), step=step)
        return out

    def _scale_shift(self, norm: FrameNorm) -> Tensor:
        """Scale and shift of the picture that was written last, whose moments are then free."""
        moments, weights = self._moments, self._layers.norms[self._names[id(norm)]]
        assert moments is not None
        frames, _, _, channels = moments.values.shape
        table = self._like.new_zeros(frames, 2, channels, dtype=torch.float32)
        self._launch(scale_shift, moments, weights, table)
        for room in (moments.values, moments.counts):
            self._arena.give_back(room)
        self._moments = None
        return table

    def _room(self, conv: PackedConv, size: Size, made: Size) -> _Room:
        """For pictures of `made` that `conv` makes of such of `size`, and for their moments."""
        pictures = self._picture(*made, conv.outputs)
        return _Room(pictures, self._moments_of(conv, size, made[0]))

    def _picture(
        self, frames: int, height: int, width: int, channels: int,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """A buffer [F, H + 2, W + 2, C] whose border is zero when it is used."""
        shape = (frames, height + 2, width + 2, channels)
        x, is_clean = self._arena.take_bordered(shape, dtype or self._like.dtype)
        if not is_clean:
            self._launch(_clear_border, x)
        return x

    def _moments_of(self, conv: PackedConv, size: Size, frames: int) -> Moments:
        """Room for those of `frames` frames that `conv` makes of pictures of `size`."""
        chip, (given, height, width) = self._layers.chip, size
        if chip is None:
            sizes = tuned_sizes(self._like.new_empty(given, 0), conv, PLAIN)
        else:
            sizes = sizes_for(chip, conv, PLAIN, given)
        tiles = conv_tiles(conv, height, width, sizes)
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


def _only(level: nn.Module, name: str, kind: type[Module]) -> Module:
    """The step to the next resolution."""
    (found,) = getattr(level, name)
    assert isinstance(found, kind)
    return found


def _as_clip(x: Tensor) -> Tensor:
    """[F, H, W, C] as [1, C, F, H, W], the same memory."""
    return x.permute(3, 0, 1, 2)[None]


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
    if frames >= keep:  # as in every group but a start's first
        state.copy_(x[frames - keep :])
        return
    for i in range(keep):
        last = frames - keep + i
        if last >= 0 or starts:
            state[i].copy_(x[max(last, 0)])
        else:
            state[i].copy_(state[i + frames])
