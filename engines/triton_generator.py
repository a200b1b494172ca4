"""The folded generator on our kernels and the library's matrix products, for one size.

Video and text lie in one buffer, video first, so that what treats every token alike (norms,
nonlinearities, linears of shared weights) is one launch. Every buffer is made once, in the arena that
the VAE's stages have for theirs: no two stages run at once.
Dimension key: N video tokens, L text tokens, M = N + L, C width, H heads, D head width.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.triton_products import E4m3Linear, Linear, Piece, Product, pieces, row_scales
from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig
from vr_trt.export.folded_generator import FoldedBlock, FoldedGenerator
from vr_trt.kernels.activation import activate
from vr_trt.kernels.residual_norm import residual_norm
from vr_trt.kernels.window_attention import window_attention
from vr_trt.kernels.window_call import AttentionBuffers, QkNorm, WindowPlan, window_plan
from vr_trt.kernels.window_tables import WindowSpec
from vr_trt.kernels.windows import Grid

HEAD_WIDTHS = (32, 64, 128)
PATCH = 2  # latents across one token
_SOURCES = {  # of a block's linears: the buffer that each reads
    "qkv": "normed", "kv": "normed", "out": "attended", "mlp_in": "normed", "mlp_out": "activated",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Buffers:
    """The activations of a call; `qkv` and `hidden` are never needed at once and share memory."""

    tokens: Tensor  # [N, patch], the network's two inputs as patches
    stream: Tensor  # [M, C], the residual stream
    normed: Tensor  # [M, C]
    qkv: Tensor  # [M, 3 H D]
    text_kv: Tensor  # [L, 2 H D], of the last block
    attended: Tensor  # [M, H D]
    projected: Tensor  # [M, C], a linear's result before it joins the stream
    hidden: Tensor  # [M, mlp], twice as wide for SwiGLU
    activated: Tensor  # [M, mlp]
    patches: Tensor  # [N, patch], the network's output
    keys: Tensor  # [M, H, D]
    codes: Mapping[str, Tensor]  # normed, attended, activated in E4M3, those that are read

    @classmethod
    def empty(
        cls, config: GeneratorConfig, N: int, text: Tensor, coded: Collection[str], arena: Arena
    ) -> "_Buffers":
        """New ones in `arena`, of the dtype of `text` [L, C]; codes of those in `coded`."""
        M, L, C, inner = N + len(text), len(text), config.width, config.heads * config.head_width
        mlp_in = config.mlp_width * (2 if config.mlp == "swiglu" else 1)

        def room(*shape: int, dtype: torch.dtype = text.dtype) -> Tensor:
            return arena.take(shape, dtype)

        shared = room(M * max(3 * inner, mlp_in))
        patch = PATCH * PATCH * config.latent_channels
        widths = {"normed": C, "attended": inner, "activated": config.mlp_width}
        e4m3 = torch.float8_e4m3fn
        return cls(
            tokens=room(N, 2 * patch),
            stream=room(M, C),
            normed=room(M, C),
            qkv=shared[: M * 3 * inner].view(M, 3 * inner),
            text_kv=room(L, 2 * inner),
            attended=room(M, inner),
            projected=room(M, C),
            hidden=shared[: M * mlp_in].view(M, mlp_in),
            activated=room(M, config.mlp_width),
            patches=room(N, patch),
            keys=room(M, config.heads, config.head_width),
            codes={name: room(M, widths[name], dtype=e4m3) for name in sorted(coded)},
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Layer:
    """One block: its products in their order, and its attention between the first two."""

    qkv: tuple[Product, ...]
    video: Tensor  # [N, 3, H, D]
    text: Tensor  # [L, 3, H, D], or keys and values
    norm: QkNorm
    plan: WindowPlan
    attention: AttentionBuffers
    out: tuple[Product, ...]
    mlp_in: tuple[Product, ...]
    mlp_out: tuple[Product, ...]


class TritonGenerator:
    """A `StaticStage`: `noise`, `latent` [1, 16, T, h, w] to `restored`, for one token grid.

    `folded` is on the device and of the precision that it runs in; of its linears those may be E4M3
    that `engines.triton_products` knows. Its activations lie in `arena`, or in memory of their own.
    ModelError for a head width that the kernels do not take.
    """

    def __init__(self, folded: FoldedGenerator, grid: Grid, arena: Arena | None = None) -> None:
        config, text = folded.config, folded.text
        if config.head_width not in HEAD_WIDTHS:
            raise ModelError(
                f"the triton backend has kernels for heads of {HEAD_WIDTHS}, not "
                f"{config.head_width}: choose another --backend"
            )
        self._folded, self._grid, self._tokens = folded, grid, prod(grid)
        blocks = [cast(FoldedBlock, block) for block in folded.blocks]
        coded = {kind for block in blocks for kind in _coded(block)}
        self.arena = arena or _own_arena(config, self._tokens, text, coded)
        self._buffers = _Buffers.empty(config, self._tokens, text, coded, self.arena)
        plans = [self._plan(shifted=layer % 2 == 1, last=False) for layer in (0, 1)]
        by_layer = [plans[layer % 2] for layer in range(config.layers)]
        by_layer[-1] = self._plan(shifted=config.layers % 2 == 0, last=True)
        distinct = (*plans, by_layer[-1])
        scratch = {id(plan): self._text_windows(plan) for plan in distinct}
        self._layers = [
            self._layer(block, plan, scratch[id(plan)])
            for block, plan in zip(blocks, by_layer, strict=True)
        ]
        T, h, w = grid
        latent = (1, config.latent_channels, T, PATCH * h, PATCH * w)
        self._inputs = {name: text.new_zeros(latent) for name in ("noise", "latent")}
        self._restored = text.new_empty(latent)

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return {"restored": self._restored}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """All that it was made of, by name."""
        return self._folded.state_dict()

    @torch.no_grad()
    def run(self) -> None:
        buffers, N, config = self._buffers, self._tokens, self._folded.config
        channels = config.latent_channels
        tokens = buffers.tokens.view(*self._grid, 2 * channels, PATCH, PATCH)
        tokens[..., :channels, :, :].copy_(self._patches(self._inputs["noise"]))
        tokens[..., channels:, :, :].copy_(self._patches(self._inputs["latent"]))
        _linear(self._folded.patch_in, buffers.tokens, buffers.stream[:N])
        buffers.stream[N:].copy_(self._folded.text)
        self._norm(self._layers[0].qkv, adds=False)
        following = [layer.qkv for layer in self._layers[1:]]
        for layer, after in zip(self._layers, (*following, None), strict=True):
            self._advance(layer, after)
        out = buffers.normed if config.output_norm else buffers.stream
        _linear(self._folded.patch_out, out[:N], buffers.patches)
        torch.add(
            self._patches(self._inputs["noise"]),
            buffers.patches.view(*self._grid, channels, PATCH, PATCH),
            out=self._patches(self._restored),
        )

    def _advance(self, layer: _Layer, after: Sequence[Product] | None) -> None:
        """One block, from its normed tokens to those that `after` reads; None: the network's end."""
        for product in layer.qkv:
            product.run()
        window_attention(layer.video, layer.text, layer.norm, layer.plan, layer.attention)
        for product in layer.out:
            product.run()
        self._norm(layer.mlp_in)
        for product in layer.mlp_in:
            product.run()
        for piece in pieces(layer.mlp_out, self._buffers.activated):
            hidden = self._buffers.hidden[piece.rows]
            activate(hidden, self._folded.config.mlp, piece.scale, out=piece.out)
        for product in layer.mlp_out:
            product.run()
        self._norm(after)

    def _norm(self, readers: Sequence[Product] | None, *, adds: bool = True) -> None:
        """The stream, with what was projected, and its norm, as those read it that follow."""
        buffers = self._buffers
        video = slice(0, self._tokens)  # all that the network's end reads
        last = [Piece(rows=video, out=buffers.normed[video], scale=None)]
        for piece in pieces(readers, buffers.normed) if readers else last:
            added = buffers.projected[piece.rows] if adds else None
            residual_norm(
                buffers.stream[piece.rows], added, scale=piece.scale,
                eps=self._folded.config.norm_eps, out=piece.out,
            )  # fmt: skip

    def _layer(self, block: FoldedBlock, plan: WindowPlan, text_windows: Tensor) -> _Layer:
        """A block's launches, every tensor in its place."""
        buffers, N, last = self._buffers, self._tokens, not plan.spec.text_queries
        heads = self._folded.config.heads, self._folded.config.head_width
        if last:
            text = buffers.text_kv.view(-1, 2, *heads)
            qkv: tuple[Product, ...] = (
                self._product("normed", slice(0, N), block.video.qkv, buffers.qkv[:N]),
                self._product(
                    "normed", slice(N, len(buffers.stream)), block.text.kv, buffers.text_kv
                ),
            )
        else:
            text = buffers.qkv[N:].view(-1, 3, *heads)
            qkv = self._products("qkv", "normed", block, buffers.qkv)
        rest = {
            kind: self._products(kind, source, block, out, video_only=last)
            for kind, source, out in (
                ("out", "attended", buffers.projected),
                ("mlp_in", "normed", buffers.hidden),
                ("mlp_out", "activated", buffers.projected),
            )
        }
        return _Layer(
            qkv=qkv,
            video=buffers.qkv[:N].view(N, 3, *heads),
            text=text,
            norm=_qk_norm(block),
            plan=plan,
            attention=self._attention(rest["out"], plan, text_windows),
            **rest,
        )

    def _products(
        self, kind: str, source: str, block: FoldedBlock, out: Tensor, *, video_only: bool = False
    ) -> tuple[Product, ...]:
        """The linear `kind` of both branches, or of the video alone; one where they share it."""
        N, M = self._tokens, len(out)
        video = getattr(block.video, kind)
        if video_only:
            return (self._product(source, slice(0, N), video, out[:N]),)
        if not block.own_text:
            return (self._product(source, slice(0, M), video, out),)
        text = getattr(block.text, kind)
        return (
            self._product(source, slice(0, N), video, out[:N]),
            self._product(source, slice(N, M), text, out[N:]),
        )

    def _product(self, source: str, rows: slice, linear: Linear, out: Tensor) -> Product:
        """One launch of `linear` over `rows` of the buffer `source` or of its codes."""
        buffers, N = self._buffers, self._tokens
        video, text = max(0, min(rows.stop, N) - rows.start), max(0, rows.stop - max(N, rows.start))
        scale = row_scales(linear, video, text)
        x = getattr(buffers, source) if scale is None else buffers.codes[source]
        return Product(rows=rows, linear=linear, x=x[rows], scale=scale, out=out)

    def _patches(self, latent: Tensor) -> Tensor:
        """[1, c, T, h, w] as [T, h / 2, w / 2, c, 2, 2], the same memory."""
        T, h, w = self._grid
        return latent.view(-1, T, h, PATCH, w, PATCH).permute(1, 2, 4, 0, 3, 5)

    def _plan(self, *, shifted: bool, last: bool) -> WindowPlan:
        config, text = self._folded.config, self._folded.text
        spec = WindowSpec(
            grid=self._grid, shifted=shifted, text_tokens=len(text),
            head_width=config.head_width, rope=config.rope, text_queries=not last,
        )  # fmt: skip
        return window_plan(spec, text.device)

    def _text_windows(self, plan: WindowPlan) -> Tensor:
        """Scratch [nW, L, H, D] for what the text attends to, window by window."""
        config = self._folded.config
        windows = plan.windows if plan.spec.text_queries else 0
        shape = windows, plan.spec.text_tokens, config.heads, config.head_width
        return self._buffers.keys.new_empty(shape)

    def _attention(
        self, out: Sequence[Product], plan: WindowPlan, text_windows: Tensor
    ) -> AttentionBuffers:
        """Where attention writes: what the products `out` read."""
        N, heads = self._tokens, (self._folded.config.heads, self._folded.config.head_width)
        video, text = out[0], out[-1]  # the same where they share weights
        texts = text.x[N:] if text is video else text.x
        ends = ((video, slice(0, 1)), (text, slice(-1, None)))
        scales = [p.scale if p.scale is None else p.scale[row] for p, row in ends]
        shown = len(texts) if plan.spec.text_queries else 0
        return AttentionBuffers(
            video_out=video.x[:N].view(N, *heads),
            text_out=texts[:shown].view(-1, *heads),
            keys=self._buffers.keys,
            text_windows=text_windows,
            video_scale=scales[0],
            text_scale=scales[1],
        )


def _own_arena(config: GeneratorConfig, N: int, text: Tensor, coded: Collection[str]) -> Arena:
    """With the memory that this one generator needs, on the device of `text`."""
    shapes = Arena()
    _Buffers.empty(config, N, text.to("meta"), coded, shapes)
    return Arena(torch.empty(shapes.size, dtype=torch.uint8, device=text.device))


def _coded(block: FoldedBlock) -> set[str]:
    """The buffers whose codes some E4M3 linear of a block reads."""
    branches = (block.video, block.text) if block.own_text else (block.video,)
    return {
        source
        for branch in branches
        for kind, source in _SOURCES.items()
        if isinstance(getattr(branch, kind, None), E4m3Linear)
    }


def _qk_norm(block: FoldedBlock) -> QkNorm:
    text = block.text if block.own_text else block.video
    return QkNorm(
        video_q=block.video.norm_q.weight,
        video_k=block.video.norm_k.weight,
        text_q=None if text.keys_only else text.norm_q.weight,
        text_k=text.norm_k.weight,
        eps=block.video.eps,
    )


def _linear(layer: nn.Linear, x: Tensor, out: Tensor) -> None:
    """x [rows, in] to out [rows, out], the bias in the product's own pass."""
    torch.addmm(layer.bias, x, layer.weight.t(), out=out)
