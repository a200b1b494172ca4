"""The folded generator on our kernels and the library's matrix products, for one size.

Video and text lie in one buffer, video first, so that what treats every token alike (norms,
nonlinearities, linears of shared weights) is one launch. Every buffer is made once.
Dimension key: N video tokens, L text tokens, M = N + L, C width, H heads, D head width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig
from vr_trt.export.folded_generator import FoldedBlock, FoldedGenerator
from vr_trt.kernels.activation import activate
from vr_trt.kernels.residual_norm import residual_norm
from vr_trt.kernels.window_attention import (
    AttentionBuffers,
    QkNorm,
    WindowPlan,
    window_attention,
    window_plan,
)
from vr_trt.kernels.window_tables import WindowSpec
from vr_trt.kernels.windows import Grid

HEAD_WIDTHS = (32, 64, 128)
PATCH = 2  # latents across one token


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

    @classmethod
    def empty(cls, config: GeneratorConfig, N: int, text: Tensor) -> "_Buffers":
        """New ones, of the dtype and on the device of `text` [L, C]."""
        M, L, C, inner = N + len(text), len(text), config.width, config.heads * config.head_width
        mlp_in = config.mlp_width * (2 if config.mlp == "swiglu" else 1)
        shared = text.new_empty(M * max(3 * inner, mlp_in))
        patch = PATCH * PATCH * config.latent_channels
        return cls(
            tokens=text.new_empty(N, 2 * patch),
            stream=text.new_empty(M, C),
            normed=text.new_empty(M, C),
            qkv=shared[: M * 3 * inner].view(M, 3 * inner),
            text_kv=text.new_empty(L, 2 * inner),
            attended=text.new_empty(M, inner),
            projected=text.new_empty(M, C),
            hidden=shared[: M * mlp_in].view(M, mlp_in),
            activated=text.new_empty(M, config.mlp_width),
            patches=text.new_empty(N, patch),
            keys=text.new_empty(M, config.heads, config.head_width),
        )


class TritonGenerator:
    """A `StaticStage`: `noise`, `latent` [1, 16, T, h, w] to `restored`, for one token grid.

    `folded` is on the device and of the precision that it runs in. ModelError for a head width that
    the kernels do not take.
    """

    def __init__(self, folded: FoldedGenerator, grid: Grid) -> None:
        config, text = folded.config, folded.text
        if config.head_width not in HEAD_WIDTHS:
            raise ModelError(
                f"the triton backend has kernels for heads of {HEAD_WIDTHS}, not "
                f"{config.head_width}: choose another --backend"
            )
        self._folded, self._grid, self._tokens = folded, grid, prod(grid)
        self._buffers = _Buffers.empty(config, self._tokens, text)
        self._blocks = [cast(FoldedBlock, block) for block in folded.blocks]
        self._norms = [_qk_norm(block) for block in self._blocks]
        plans = [self._plan(shifted=layer % 2 == 1, last=False) for layer in (0, 1)]
        self._plans = [plans[layer % 2] for layer in range(config.layers)]
        self._plans[-1] = self._plan(shifted=config.layers % 2 == 0, last=True)
        self._attention = {
            id(plan): self._attention_buffers(plan) for plan in (*plans, self._plans[-1])
        }
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

    @torch.no_grad()
    def run(self) -> None:
        buffers, N, config = self._buffers, self._tokens, self._folded.config
        channels = config.latent_channels
        tokens = buffers.tokens.view(*self._grid, 2 * channels, PATCH, PATCH)
        tokens[..., :channels, :, :].copy_(self._patches(self._inputs["noise"]))
        tokens[..., channels:, :, :].copy_(self._patches(self._inputs["latent"]))
        _linear(self._folded.patch_in, buffers.tokens, buffers.stream[:N])
        buffers.stream[N:].copy_(self._folded.text)
        residual_norm(buffers.stream, eps=config.norm_eps, out=buffers.normed)
        for layer in range(config.layers):
            self._attend(layer)
            self._advance(layer)
        out = buffers.normed if config.output_norm else buffers.stream
        _linear(self._folded.patch_out, out[:N], buffers.patches)
        torch.add(
            self._patches(self._inputs["noise"]),
            buffers.patches.view(*self._grid, channels, PATCH, PATCH),
            out=self._patches(self._restored),
        )

    def _attend(self, layer: int) -> None:
        """From the normed tokens to `attended`; the last block's text has keys and values only."""
        buffers, N, config = self._buffers, self._tokens, self._folded.config
        heads, block, plan = (
            (config.heads, config.head_width),
            self._blocks[layer],
            self._plans[layer],
        )
        video = buffers.qkv[:N].view(N, 3, *heads)
        if plan.spec.text_queries:
            self._project("qkv", block, buffers.normed, buffers.qkv)
            text = buffers.qkv[N:].view(-1, 3, *heads)
        else:
            self._project("qkv", block, buffers.normed[:N], buffers.qkv[:N])
            _linear(block.text.kv, buffers.normed[N:], buffers.text_kv)
            text = buffers.text_kv.view(-1, 2, *heads)
        window_attention(video, text, self._norms[layer], plan, self._attention[id(plan)])

    def _advance(self, layer: int) -> None:
        """The stream and its norm after attention and MLP; the last block's text stays behind."""
        config, block = self._folded.config, self._blocks[layer]
        rows = slice(None if self._plans[layer].spec.text_queries else self._tokens)
        stream, normed, attended, projected, hidden, activated = (
            getattr(self._buffers, name)[rows]
            for name in ("stream", "normed", "attended", "projected", "hidden", "activated")
        )
        self._project("out", block, attended, projected)
        residual_norm(stream, projected, eps=config.norm_eps, out=normed)
        self._project("mlp_in", block, normed, hidden)
        activate(hidden, config.mlp, out=activated)
        self._project("mlp_out", block, activated, projected)
        residual_norm(stream, projected, eps=config.norm_eps, out=normed)

    def _project(self, name: str, block: FoldedBlock, x: Tensor, out: Tensor) -> None:
        """The linear `name` of both branches; one product where they share it or x is video only."""
        N = self._tokens
        if block.own_text and len(x) > N:
            _linear(getattr(block.text, name), x[N:], out[N:])
            x, out = x[:N], out[:N]
        _linear(getattr(block.video, name), x, out)

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

    def _attention_buffers(self, plan: WindowPlan) -> AttentionBuffers:
        buffers, N = self._buffers, self._tokens
        heads = self._folded.config.heads, self._folded.config.head_width
        windows, L = (plan.windows, len(buffers.attended) - N) if plan.spec.text_queries else (0, 0)
        return AttentionBuffers(
            video_out=buffers.attended[:N].view(N, *heads),
            text_out=buffers.attended[N : N + L].view(L, *heads),
            keys=buffers.keys,
            text_windows=buffers.keys.new_empty(windows, plan.spec.text_tokens, *heads),
        )


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
