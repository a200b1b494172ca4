"""The one-step generator (3B and 7B code paths), with the checkpoints' names.

Dimension key: T, h, w latent frames, rows, columns; N = T * h/2 * w/2 tokens; L text tokens;
C width. Source: network spec §3, §4. This is the plain form; `folded_generator` is the deployed.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.export.config import GeneratorConfig
from vr_trt.export.window_attention import (
    GroupedWindows,
    Heads,
    Windows,
    rotate_neighbours,
    rotate_text,
    text_rotation,
)
from vr_trt.kernels.rope import frequencies
from vr_trt.kernels.windows import Grid

TIME_WAVES = 256  # sines, then cosines


class Modulation(NamedTuple):
    """Shift, scale and gate, each [C]; the scale's +1 is inside its learned part."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last axis."""
    return F.rms_norm(x, x.shape[-1:], eps=eps)


def time_waves(timestep: Tensor) -> Tensor:
    """Sines and cosines [256] of a timestep in 0..1000 (spec §3)."""
    half = TIME_WAVES // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float().reshape(1) * torch.exp(-exponent * torch.log(torch.tensor(10000.0)))
    return torch.cat([angles.sin(), angles.cos()])


class TimeEmbedding(nn.Module):
    """Timestep to the six modulation vectors of a layer, [6 * C], channel outermost."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(TIME_WAVES, width)
        self.proj_hid = nn.Linear(width, width)
        self.proj_out = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> Tensor:
        x = self.proj_in(time_waves(timestep).to(self.proj_in.weight.dtype))
        x = self.proj_out(F.silu(self.proj_hid(F.silu(x))))
        return x


class PerModality(nn.Module):
    """A module for video and one for text, or one (`all`) for both, or one for video alone."""

    def __init__(self, make: Callable[[], nn.Module], *, shared: bool, text: bool = True) -> None:
        super().__init__()
        self.shared = shared
        for name in ("all",) if shared else ("vid", "txt") if text else ("vid",):
            self.add_module(name, make())

    def pick(self, modality: str) -> nn.Module:
        """The module of `vid` or `txt`."""
        return self.get_submodule("all" if self.shared else modality)

    def forward(self, modality: str, x: Tensor) -> Tensor:
        return self.pick(modality)(x)


class SwiGlu(nn.Module):
    """The 3B's MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_in_gate = nn.Linear(width, hidden, bias=False)
        self.proj_in = nn.Linear(width, hidden, bias=False)
        self.proj_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(F.silu(self.proj_in_gate(x)) * self.proj_in(x))


class GeluMlp(nn.Module):
    """The 7B's MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, hidden)
        self.proj_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(F.gelu(self.proj_in(x), approximate="tanh"))


class LayerModulation(nn.Module):
    """The learned part of a block's shifts, scales and gates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for layer in ("attn", "mlp"):
            for name in Modulation._fields:
                start = torch.ones(width) if name == "scale" else torch.zeros(width)
                self.register_parameter(f"{layer}_{name}", nn.Parameter(start))

    def modulation(self, layer: str, embedding: Tensor) -> Modulation:
        """Of `attn` or `mlp`, given the time embedding [6 * C] (spec §3, emb layout)."""
        parts = embedding.view(-1, 2, 3)[:, 0 if layer == "attn" else 1].unbind(1)
        names = Modulation._fields
        return Modulation(
            *(p + self.get_parameter(f"{layer}_{n}") for p, n in zip(parts, names, strict=True))
        )


class RopeBuffer(nn.Module):
    """The frequencies as checkpoints carry them; `kernels.rope` recomputes what is used."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.rope = nn.Module()
        freqs = torch.from_numpy(frequencies(config.rope, config.head_width))
        self.rope.register_buffer("freqs", freqs)


class WindowAttention(nn.Module):
    """Joint attention of the windows' video tokens and the text."""

    def __init__(self, config: GeneratorConfig, shared: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        norm = partial(nn.RMSNorm, config.head_width, eps=config.norm_eps)
        self.heads = config.heads
        self.proj_qkv = PerModality(
            lambda: nn.Linear(config.width, 3 * inner, bias=False), shared=shared
        )
        self.proj_out = PerModality(lambda: nn.Linear(inner, config.width), shared=shared)
        self.norm_q = PerModality(norm, shared=shared)
        self.norm_k = PerModality(norm, shared=shared)
        self.rope = RopeBuffer(config)

    def _heads(self, modality: str, x: Tensor) -> Heads:
        q, k, v = self.proj_qkv(modality, x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return Heads(self.norm_q(modality, q), self.norm_k(modality, k), v)

    def forward(
        self, video: Tensor, text: Tensor, windows: Windows, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Video [N, C] and text [L, C], both normalised and modulated, to the same shapes."""
        text_heads = rotate_text(self._heads("txt", text), rotation, rotate_neighbours)
        video_heads = self._heads("vid", windows.arrange(video))
        video_out, text_out = windows(video_heads, text_heads)
        assert text_out is not None
        return self.proj_out("vid", video_out), self.proj_out("txt", text_out)


class Block(nn.Module):
    """Attention and MLP on the residual streams of video and text (spec §4)."""

    def __init__(self, config: GeneratorConfig, layer: int) -> None:
        super().__init__()
        shared = config.shared(layer)
        # The last block's text feeds only the attention of that block (spec §4.5).
        self.text_goes_on = config.last_block_text or layer < config.layers - 1
        self.eps = config.norm_eps
        mlp = SwiGlu if config.mlp == "swiglu" else GeluMlp
        self.attn = WindowAttention(config, shared)
        self.mlp = PerModality(
            lambda: mlp(config.width, config.mlp_width), shared=shared, text=self.text_goes_on
        )
        self.ada = PerModality(
            lambda: LayerModulation(config.width), shared=shared, text=self.text_goes_on
        )

    def _modulation(self, modality: str, layer: str, embedding: Tensor) -> Modulation:
        ada = self.ada.pick(modality)
        assert isinstance(ada, LayerModulation)
        return ada.modulation(layer, embedding)

    def _modulated(self, x: Tensor, by: Modulation) -> Tensor:
        return rms_norm(x, self.eps) * by.scale + by.shift

    def _mlp(self, modality: str, x: Tensor, embedding: Tensor) -> Tensor:
        by = self._modulation(modality, "mlp", embedding)
        return x + self.mlp(modality, self._modulated(x, by)) * by.gate

    def forward(
        self, video: Tensor, text: Tensor, embedding: Tensor, windows: Windows,
        rotation: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Video [N, C] and text [L, C], embedding [6 * C], to the same shapes."""
        by = self._modulation("vid", "attn", embedding)
        if self.text_goes_on:
            by_text = self._modulation("txt", "attn", embedding)
            text_in = self._modulated(text, by_text)
        else:
            text_in = rms_norm(text, self.eps)
        attended, attended_text = self.attn(self._modulated(video, by), text_in, windows, rotation)
        video = self._mlp("vid", video + attended * by.gate, embedding)
        if not self.text_goes_on:  # the reference adds its residual twice; nothing reads it
            return video, 2 * (text + attended_text)
        return video, self._mlp("txt", text + attended_text * by_text.gate, embedding)


class OutputModulation(nn.Module):
    """Shift and scale before the last linear (3B)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_shift = nn.Parameter(torch.zeros(width))
        self.out_scale = nn.Parameter(torch.ones(width))


class PatchIn(nn.Module):
    """(1, 2, 2) patches of [T, h, w, c] to tokens [N, C]; a patch is ordered row, column, c."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(4 * channels, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [T, H, 2, W, 2, c]
        return self.proj(x.transpose(2, 3).flatten(3).flatten(0, 2))


class PatchOut(nn.Module):
    """Tokens [N, C] to [T, h, w, c]."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 4 * channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        T, H, W = grid
        patches = self.proj(x).view(T, H, W, 2, 2, -1).transpose(2, 3)
        return patches.reshape(T, 2 * H, 2 * W, -1)


class Generator(nn.Module):
    """Predicts the velocity v = x_T - x_0 of a clip's latents."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.vid_in = PatchIn(config.vid_in_channels, config.width)
        self.txt_in = nn.Linear(config.text_width, config.width)
        self.emb_in = TimeEmbedding(config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.vid_out = PatchOut(config.width, config.vid_out_channels)
        if config.output_norm:
            self.vid_out_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
            self.vid_out_ada = OutputModulation(config.width)
        self._windows: dict[tuple[Grid, int], tuple[GroupedWindows, GroupedWindows]] = {}

    def _partition(self, grid: Grid, text_tokens: int) -> tuple[GroupedWindows, GroupedWindows]:
        """The plain and the shifted windows; kept, for they cost more than a small forward."""
        c = self.config
        if (grid, text_tokens) not in self._windows:
            plain, shifted = (
                GroupedWindows(grid, shift, text_tokens, c.head_width, c.rope)
                for shift in (False, True)
            )
            self._windows[grid, text_tokens] = plain, shifted
        return self._windows[grid, text_tokens]

    def _head(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The output norm uses the attention slots of the embedding (spec §4.6)."""
        if not self.config.output_norm:
            return x
        shift, scale, _ = embedding.view(-1, 2, 3)[:, 0].unbind(1)
        ada = self.vid_out_ada
        return self.vid_out_norm(x) * (scale + ada.out_scale) + (shift + ada.out_shift)

    def forward(self, video: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        """Predict v [T, h, w, 16].

        `video` [T, h, w, 33] is noise, condition latent and mask; `text` [L, text_width];
        `timestep` a scalar in 0..1000. h and w are even.
        """
        T, h, w, _ = video.shape
        grid = (T, h // 2, w // 2)
        windows = [part.to(video.device) for part in self._partition(grid, len(text))]
        cos, sin = text_rotation(self.config.rope, len(text), self.config.head_width)
        rotation = cos.to(video.device), sin.to(video.device)
        x, y, embedding = self.vid_in(video), self.txt_in(text), self.emb_in(timestep)
        for layer, block in enumerate(self.blocks):
            x, y = block(x, y, embedding, windows[layer % 2], rotation)
        return self.vid_out(self._head(x, embedding), grid)
