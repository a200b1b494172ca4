"""The deployed generator: timestep and prompt are constants, folded into the linears.

What is left of a block is RMSNorm, linear, attention, linear, and the MLP. Latents are
[1, 16, T, h, w], as the VAE stages give and take them, and the output is the restored latent.
Dimension key: C width, H heads, D head width, L text tokens, N video tokens.
`fold_generator` makes the weights. Source: network spec §4.7.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.export.config import GeneratorConfig
from vr_trt.export.window_attention import (
    GroupedWindows,
    Heads,
    PaddedWindows,
    Windows,
    rotate_halves,
    rotate_text,
    text_rotation,
)
from vr_trt.kernels.windows import Grid

TABLES = ("index", "mask", "place", "cos", "sin")
PARTITIONS = ("plain", "shifted")  # of even and odd blocks


class Branch(nn.Module):
    """One modality's weights of a block; the last block's text has keys and values only."""

    def __init__(self, config: GeneratorConfig, *, keys_only: bool = False) -> None:
        super().__init__()
        C, inner, eps = config.width, config.heads * config.head_width, config.norm_eps
        self.eps, self.heads, self.keys_only = eps, config.heads, keys_only
        self.swiglu = config.mlp == "swiglu"
        self.norm_k = nn.RMSNorm(config.head_width, eps=eps)
        if keys_only:
            self.kv = nn.Linear(C, 2 * inner)
            return
        self.norm_q = nn.RMSNorm(config.head_width, eps=eps)
        self.qkv = nn.Linear(C, 3 * inner)
        self.out = nn.Linear(inner, C)
        self.mlp_in = nn.Linear(C, config.mlp_width * (2 if self.swiglu else 1))
        self.mlp_out = nn.Linear(config.mlp_width, C)

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)

    def project(self, x: Tensor, windows: Windows | None = None) -> Heads:
        """Queries, keys and values [tokens, H, D] of the residual stream [tokens, C].

        With `windows`, in their order.
        """
        x = self._norm(windows.arrange(x) if windows else x)
        if self.keys_only:
            return Heads(None, *self._heads(self.kv(x), [self.norm_k]))
        return Heads(*self._heads(self.qkv(x), [self.norm_q, self.norm_k]))

    def _heads(self, x: Tensor, norms: list[nn.RMSNorm]) -> list[Tensor]:
        """Cut [tokens, (parts H D)] into parts [tokens, H, D]; all but the last are normalised.

        In 16 bits the norms' divisors are found for all parts at once, apart from the division:
        compilers then divide, rotate and bring the heads into their windows in one pass. ONNX
        Runtime has no such passes on a CPU, and is faster with the norm as one operator.
        """
        H, count = self.heads, len(norms) + 1
        heads = x.unflatten(-1, (count, H, -1))
        parts = [heads[:, i : i + 1].flatten(1, 2) for i in range(count)]  # slices: no copies
        if x.dtype == torch.float32:
            return [*(norm(part) for norm, part in zip(norms, parts, strict=False)), parts[-1]]
        wide = x.unflatten(-1, (count * H, -1)).float()
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        for i, norm in enumerate(norms):
            normed = parts[i].float() * scale[:, i * H : (i + 1) * H]
            parts[i] = normed.to(x.dtype) * norm.weight
        return parts

    def advance(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream [tokens, C] after attention [tokens, H * D] and MLP."""
        x = x + self.out(attended)
        hidden = self.mlp_in(self._norm(x))
        if self.swiglu:
            width = self.mlp_out.in_features
            hidden = F.silu(hidden[:, :width]) * hidden[:, width:]
        else:
            hidden = F.gelu(hidden, approximate="tanh")
        return x + self.mlp_out(hidden)


class FoldedBlock(nn.Module):
    """Video and text through one layer."""

    def __init__(self, config: GeneratorConfig, layer: int) -> None:
        super().__init__()
        last = layer == config.layers - 1
        self.video = Branch(config)
        self.own_text = last or not config.shared(layer)
        if self.own_text:
            self.text = Branch(config, keys_only=last)

    def forward(
        self, x: Tensor, y: Tensor, windows: Windows, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Video [N, C] and text [L, C] to the same; the last block leaves the text alone."""
        text = self.text if self.own_text else self.video
        heads = rotate_text(text.project(y), rotation, rotate_halves)
        attended, attended_text = windows(self.video.project(x, windows), heads)
        x = self.video.advance(x, attended)
        return x, y if attended_text is None else text.advance(y, attended_text)


class FoldedGenerator(nn.Module):
    """Noise and low-quality latent to restored latent, in one step.

    The windows come from outside: `StaticGenerator` bakes those of one size into the graph,
    `AnySizeGenerator` takes them as inputs.
    """

    text: Tensor  # [L, C]
    text_cos: Tensor  # [L, 1, D / 2]
    text_sin: Tensor

    def __init__(self, config: GeneratorConfig, text_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.patch_in = nn.Linear(4 * 2 * config.latent_channels, config.width)
        self.blocks = nn.ModuleList(FoldedBlock(config, i) for i in range(config.layers))
        self.patch_out = nn.Linear(config.width, 4 * config.vid_out_channels)
        self.register_buffer("text", torch.empty(text_tokens, config.width))
        cos, sin = text_rotation(config.rope, text_tokens, config.head_width)
        self.register_buffer("text_cos", cos, persistent=False)
        self.register_buffer("text_sin", sin, persistent=False)

    def _tokens(self, x: Tensor) -> Tensor:
        """[1, c, T, h, w] to [N, c * 2 * 2]."""
        _, c, T, h, w = x.shape
        patches = x.view(c, T, h // 2, 2, w // 2, 2).permute(1, 2, 4, 0, 3, 5)
        return patches.reshape(T * (h // 2) * (w // 2), 4 * c)

    def _latent(self, tokens: Tensor, like: Tensor) -> Tensor:
        """[N, c * 2 * 2] to [1, c, T, h, w]."""
        _, c, T, h, w = like.shape
        patches = tokens.view(T, h // 2, w // 2, c, 2, 2).permute(3, 0, 1, 4, 2, 5)
        return patches.reshape(1, c, T, h, w)

    def forward(self, noise: Tensor, latent: Tensor, windows: Sequence[Windows]) -> Tensor:
        """Restore `latent` [1, 16, T, h, w]; `windows` are the plain and the shifted ones."""
        x = self.patch_in(self._tokens(torch.cat([noise, latent], 1)))
        y = self.text
        for layer, block in enumerate(self.blocks):
            x, y = block(x, y, windows[layer % 2], (self.text_cos, self.text_sin))
        if self.config.output_norm:
            x = F.rms_norm(x, x.shape[-1:], eps=self.config.norm_eps)
        return noise + self._latent(self.patch_out(x), noise)


class StaticGenerator(nn.Module):
    """A generator for one token grid (T, h/2, w/2), its windows grouped by shape."""

    def __init__(self, folded: FoldedGenerator, grid: Grid) -> None:
        super().__init__()
        config = folded.config
        self.folded = folded
        self.windows = nn.ModuleList(
            GroupedWindows(
                grid, shifted, len(folded.text), config.head_width, config.rope, rotate_halves
            )
            for shifted in (False, True)
        ).to(folded.text.dtype)

    def forward(self, noise: Tensor, latent: Tensor) -> Tensor:
        return self.folded(noise, latent, self.windows)


class AnySizeGenerator(nn.Module):
    """A generator for every size: the window tables are inputs, see `PaddedWindows`."""

    def __init__(self, folded: FoldedGenerator) -> None:
        super().__init__()
        self.folded = folded

    def forward(self, noise: Tensor, latent: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """`tables` are `TABLES` of the plain windows, then of the shifted."""
        windows = [
            PaddedWindows(dict(zip(TABLES, half, strict=True)), rotate_halves)
            for half in (tables[: len(TABLES)], tables[len(TABLES) :])
        ]
        return self.folded(noise, latent, windows)
