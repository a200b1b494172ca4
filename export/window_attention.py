"""Attention inside windows, with the text in every window. Source: network spec §4.1, §4.4.

Dimension key: N video tokens, L text tokens, nW windows, S tokens of a window, H heads, D head
width. Two forms give the same numbers: `GroupedWindows` batches the windows of one shape (static
graphs, no mask, no padding); `PaddedWindows` takes its tables as inputs (one graph for all sizes).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vr_trt.kernels.rope import Rope, text_tables, video_tables
from vr_trt.kernels.windows import Grid, window_tables

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]  # x [.., D], cos and sin [.., D / 2]


class Heads(NamedTuple):
    """Queries, keys and values per token, each [tokens, H, D]; text may have no queries."""

    q: Tensor | None
    k: Tensor
    v: Tensor


class Windows(Protocol):
    """A partition of the video tokens into windows that attend."""

    def arrange(self, x: Tensor) -> Tensor:
        """Bring tokens [N, ...] into the order in which `__call__` wants them projected."""
        ...

    def __call__(self, video: Heads, text: Heads) -> tuple[Tensor, Tensor | None]:
        """Give video [N, H * D] in its first order, and text [L, H * D], its mean over windows.

        `text` comes rotated, `video` does not. Without text queries there is no text output.
        """
        ...


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2j, 2j + 1), as the checkpoints have them, in fp32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (j, j + D / 2): contiguous, for weights that folding has reordered.

    The tables may be wider than x: those that come in as a graph's inputs are fp32 always.
    """
    half = x.shape[-1] // 2  # slices: exporters make a sequence of a chunk
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def rotate_text(text: Heads, tables: tuple[Tensor, Tensor], rotate: Rotate) -> Heads:
    """Rotate the text's queries and keys by its tables, [L, 1, D / 2] each."""
    q = None if text.q is None else rotate(text.q, *tables)
    return Heads(q, rotate(text.k, *tables), text.v)


def text_rotation(rope: Rope, tokens: int, head_width: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the text tokens, [L, 1, D / 2] float32."""
    cos, sin = text_tables(rope, tokens, head_width)
    return torch.from_numpy(cos).unsqueeze(1), torch.from_numpy(sin).unsqueeze(1)


def _attend(video: Heads, text: Heads, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Attention over windows [nW, S, H, D] and text [L, H, D]: [nW, S, H * D], [nW, L, H * D]."""
    assert video.q is not None
    count, size = video.k.shape[:2]

    def joined(x: Tensor, y: Tensor) -> Tensor:  # [nW, H, S + L, D]
        return torch.cat([x, y.expand(count, -1, -1, -1)], 1).transpose(1, 2)

    q = video.q.transpose(1, 2) if text.q is None else joined(video.q, text.q)
    k, v = joined(video.k, text.k), joined(video.v, text.v)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    return (out, None) if text.q is None else (out[:, :size], out[:, size:])


class GroupedWindows(nn.Module):
    """The windows of one grid, plain or shifted, batched by shape.

    Tokens are brought into the windows' order once, where they are narrowest (before they are
    projected to queries, keys and values), so that a window is a slice. Rotary tables lie in that
    order, too.
    """

    order: Tensor  # [N] the tokens of all windows, group after group
    place: Tensor  # [N] its inverse
    cos: Tensor  # [N, 1, D / 2]
    sin: Tensor

    def __init__(
        self, grid: Grid, shifted: bool, text_tokens: int, head_width: int, rope: Rope,
        rotate: Rotate = rotate_neighbours,
    ) -> None:  # fmt: skip
        super().__init__()
        tables = window_tables(grid, shifted)
        self.rotate, self.count = rotate, tables.count
        self.shapes = [group.index.shape for group in tables.groups]  # windows, tokens of each
        rows = [
            np.tile(video_tables(rope, group.shape, text_tokens, head_width), (1, count, 1))
            for group, (count, _) in zip(tables.groups, self.shapes, strict=True)
        ]
        cos, sin = np.concatenate(rows, 1)
        order = np.concatenate([group.index.reshape(-1) for group in tables.groups])
        self.register_buffer("order", torch.from_numpy(order), persistent=False)
        self.register_buffer("place", torch.from_numpy(tables.place), persistent=False)
        self.register_buffer("cos", torch.from_numpy(cos).unsqueeze(1), persistent=False)
        self.register_buffer("sin", torch.from_numpy(sin).unsqueeze(1), persistent=False)

    def arrange(self, x: Tensor) -> Tensor:
        """Tokens [N, ...] in the windows' order."""
        return x.index_select(0, self.order)

    def forward(self, video: Heads, text: Heads) -> tuple[Tensor, Tensor | None]:
        assert video.q is not None
        q, k = (self.rotate(x, self.cos, self.sin) for x in (video.q, video.k))
        outputs, texts, start = [], [], 0
        for count, size in self.shapes:
            stop = start + count * size
            group = [x[start:stop].view(count, size, *x.shape[1:]) for x in (q, k, video.v)]
            out, out_text = _attend(Heads(*group), text)
            outputs.append(out.flatten(0, 1))
            if out_text is not None:
                texts.append(out_text.sum(0))
            start = stop
        out = torch.cat(outputs).index_select(0, self.place)
        return out, torch.stack(texts).sum(0) / self.count if texts else None


class PaddedWindows:
    """Windows of any grid, padded to the longest, from tables that are inputs.

    `index` [nW, S] int64, `mask` [nW, 1, 1, S + L] bool, `place` [N] int64, `cos` and `sin`
    [N, 1, D / 2]: see `kernels.windows.any_size_tables`.
    """

    def __init__(self, tables: dict[str, Tensor], rotate: Rotate) -> None:
        self.tables, self.rotate = tables, rotate

    def arrange(self, x: Tensor) -> Tensor:
        """Tokens as they are: padding would be projected as well."""
        return x

    def __call__(self, video: Heads, text: Heads) -> tuple[Tensor, Tensor | None]:
        index, mask, place, cos, sin = (
            self.tables[name] for name in ("index", "mask", "place", "cos", "sin")
        )
        assert video.q is not None
        q, k = self.rotate(video.q, cos, sin), self.rotate(video.k, cos, sin)
        q, k, v = (
            x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:])
            for x in (q, k, video.v)
        )
        queries = index.shape[1] + (0 if text.q is None else len(text.q))
        mask = mask.expand(-1, -1, queries, -1)  # ONNX Runtime does not broadcast it itself
        out, out_text = _attend(Heads(q, k, v), text, mask)
        out = out.flatten(0, 1).index_select(0, place)
        return out, None if out_text is None else out_text.mean(0)
