"""One call's launches, layer by layer, on buffers of an arena: nothing is computed here.

Between two convolutions there are two launches: the moments that the first left are merged, and its
output is normed and activated (see `kernels.conv3d` for why that is no prologue). What a layer must
remember is copied from its input once the layer has read its past: a buffer for each state, rather
than two.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.vae_layers import CoderLayers
from vr_trt.errors import ModelError
from vr_trt.export.causal import CausalConv3d, FrameAttention, FrameNorm
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.sub_pixel import SubPixelUpsample
from vr_trt.kernels.conv3d import conv3d
from vr_trt.kernels.conv_few import FewConv, tap_columns, tap_sum
from vr_trt.kernels.conv_layer import PLAIN, Extras, PackedConv, Prologue, inside
from vr_trt.kernels.conv_sizes import conv_tiles, sizes_for, tuned_sizes
from vr_trt.kernels.frame_attention import frame_attention
from vr_trt.kernels.group_norm import Moments, activate, scale_shift

Size = tuple[int, int, int]  # frames, rows, columns
Item = TypeVar("Item")
LIMIT = 2**31  # elements of a frame


@dataclass(frozen=True, slots=True)
class Room:
    """Where convolutions write frame after frame: pictures in their borders, and their moments."""

    pictures: Tensor
    moments: Moments

    def part(self, first: int, frames: int) -> "Room":
        now, all_of = slice(first, first + frames), self.moments
        moments = Moments(values=all_of.values[now], counts=all_of.counts[now])
        return Room(self.pictures[now], moments)


@dataclass(frozen=True, slots=True)
class Piece:
    """A launch of an upsampling layer, for one frame of its input."""

    conv: PackedConv
    x: Tensor  # the frame, and before it what its taps see that is no past
    extras: Extras

    @property
    def size(self) -> Size:
        """Of what it gives."""
        return self.conv.form.shape(size_of(self.x), self.extras.lead_of(self.conv))


class Launches:
    """What a call launches, in order, and the convolutions that it `used`, by name.

    `starts`: whether the call is the first of a shot, so that nothing lies before its first frame.
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

    def _in_turn(self, groups: Iterable[Item]) -> Iterator[Item]:
        """The groups of a call's frames: behind the first there is what the one before left."""
        starts = self._starts
        for group in groups:
            yield group
            self._starts = False
        self._starts = starts

    def _conv(
        self, layer: CausalConv3d, x: Tensor,
        *, plus: Tensor | None = None, moments: bool = True, into: Room | None = None,
    ) -> Tensor:  # fmt: skip
        """A layer's output, or its sum with the picture `plus`, in place; and its moments."""
        name = self._names[id(layer)]
        conv, extras = self._packed(name), Extras(past=self._past(name, layer.keep_frames, x))
        size = conv.form.shape(size_of(x), extras.lead_of(conv))
        if into is None:
            out = self._picture(*size, conv.outputs) if plus is None else plus
            self._moments = self._moments_of(conv, size_of(x), size[0]) if moments else None
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
        columns = self._arena.take(few.room(*size_of(x)), torch.float32)
        self._launch(tap_columns, x, few, columns, past)
        self._launch(tap_sum, columns, few, out)
        self._arena.give_back(columns)

    def _upsample(self, layer: SubPixelUpsample, x: Tensor) -> Tensor:
        out = self._written(self._pieces(layer, x))
        self._remember(self._names[id(layer)], layer.keep_frames, x)
        return out

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
        self._moments = self._moments_of(to_out, size_of(x), frames)
        extras = Extras(residual=inside(x), moments=self._moments)
        self._launch(conv3d, attended, to_out, inside(x), extras)
        return self._released(attended, x)

    def _pieces(self, layer: SubPixelUpsample, x: Tensor) -> list[Piece]:
        """Where time is doubled, one for each frame: at a shot's start the first have own weights."""
        name = self._names[id(layer)]

        def piece(which: str, seen: Tensor, extras: Extras) -> Piece:
            return Piece(self._packed(f"{name}.{which}"), seen, extras)

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

    def _written(self, pieces: Sequence[Piece]) -> Tensor:
        """The frames that `pieces` give, in one picture."""
        size = sum(piece.size[0] for piece in pieces), *pieces[0].size[1:]
        room, first = self._room(pieces[0].conv, size_of(pieces[0].x), size), 0
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
            out = self._picture(*size_of(x), x.shape[3], dtype)
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

    def _room(self, conv: PackedConv, size: Size, made: Size) -> Room:
        """For pictures of `made` that `conv` makes of such of `size`, and for their moments."""
        pictures = self._picture(*made, conv.outputs)
        return Room(pictures, self._moments_of(conv, size, made[0]))

    def _picture(
        self, frames: int, height: int, width: int, channels: int,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """A buffer [F, H + 2, W + 2, C] whose border is zero when it is used.

        ModelError where a frame has more elements than the kernels address.
        """
        shape = (frames, height + 2, width + 2, channels)
        if prod(shape[1:]) >= LIMIT:
            raise ModelError(
                f"at {width}x{height} a picture of {channels} channels has 2^31 elements or more, "
                "which the triton backend cannot address: choose a smaller --profile"
            )
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


def size_of(x: Tensor) -> Size:
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
