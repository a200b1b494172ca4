"""Goes through a coder of the VAE, group of frames by group of frames, and writes down what to launch.

Where the number of frames is two (or, at a shot's start, one) for each latent of the quarter
resolution, the half and the full resolution take that many frames at a time: the encoder gathers
what each group leaves, the decoder goes from each group to its pictures. Nothing but the causal state
couples frames, and states are in place, so what a group reads as its past is what the group before
left: the same numbers to the last bit, and the buffers of two frames.
"""

from typing import TypeVar

from torch import Tensor, nn

from vr_trt.engines.vae_launches import Launches
from vr_trt.export.causal import FrameAttention
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.sub_pixel import SubPixelUpsample
from vr_trt.export.vae import Decoder, Downsample, Encoder, MidBlock, ResBlock
from vr_trt.kernels.conv_layer import bordered, inside

Module = TypeVar("Module", bound=nn.Module)
FINE = 2  # levels of the highest resolutions, half and full


def groups_of(count: int) -> list[range]:
    """Frames of the quarter resolution, of `count`, that are taken at a time: one."""
    return [range(i, i + 1) for i in range(count)]


class Walk(Launches):
    """One call's way through a network on buffers of the arena."""

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


def _only(level: nn.Module, name: str, kind: type[Module]) -> Module:
    """The step to the next resolution."""
    (found,) = getattr(level, name)
    assert isinstance(found, kind)
    return found


def _as_clip(x: Tensor) -> Tensor:
    """[F, H, W, C] as [1, C, F, H, W], the same memory."""
    return x.permute(3, 0, 1, 2)[None]
