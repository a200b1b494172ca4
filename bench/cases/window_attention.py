"""Window attention from the fused qkv to the scattered result, one layer, in bf16.

Rivals do the same from the same tensors: gather, norms, rotation, attention, scatter, text mean.
One batches the windows of one shape and uses PyTorch's scaled-dot-product attention; the other
packs all windows and uses its variable-length flash attention.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Tunable
from vr_trt.bench.cases.networks import half, poisoned
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.export.window_attention import (
    GroupedWindows,
    Heads,
    rotate_halves,
    rotate_text,
    text_rotation,
)
from vr_trt.kernels.rope import Rope
from vr_trt.kernels.tuning import tuned
from vr_trt.kernels.window_attention import window_attention, window_attention_reference
from vr_trt.kernels.window_call import AttentionBuffers, QkNorm, window_plan
from vr_trt.kernels.window_tables import WindowSpec, packed_windows, rotary_rows
from vr_trt.kernels.windows import Grid

TEXT = 58
WIDTH = 128
HD, FULL_HD = (6, 45, 80), (6, 68, 120)  # of 21 frames
SIZES: dict[str, tuple[str, Grid, int]] = {  # model, token grid and importance
    "3B 720p, 21 frames": ("3B", HD, 0),
    "3B 1080p, 21 frames": ("3B", FULL_HD, 1),
    "7B 720p, 21 frames": ("7B", HD, 2),
}
MODELS: dict[str, tuple[int, Rope]] = {"3B": (20, "language"), "7B": (24, "pixel")}
# As far from fp32 as PyTorch's own bf16 run is, and a half more.
LIMIT = 8e-3
FLASH = "flash, varlen"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    spec: WindowSpec
    video: Tensor  # [N, 3, H, D] bf16
    text: Tensor  # [L, 3, H, D]
    norm: QkNorm

    @cached_property
    def wide(self) -> QkNorm:
        return self.norm.to(self.video.device, torch.float32)


def make(spec: WindowSpec, heads: int) -> Callable[[str, int], Inputs]:
    """Random queries, keys and values, and weights of their norms."""

    def inputs(device: str, seed: int) -> Inputs:
        dtype = half(device)
        random = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, device=device)

        D = spec.head_width
        weights = [(1 + 0.3 * normal(D)).to(dtype) for _ in range(4)]
        return Inputs(
            spec=spec,
            video=normal(spec.video_tokens, 3, heads, D).to(dtype),
            text=normal(spec.text_tokens, 3, heads, D).to(dtype),
            norm=QkNorm(
                video_q=weights[0], video_k=weights[1], text_q=weights[2], text_k=weights[3]
            ),
        )

    return inputs


def reference(given: Inputs) -> tuple[Tensor, ...]:
    """In fp32, window after window."""
    video, text = given.video.float(), given.text.float()
    return _both(window_attention_reference(video, text, given.wide, given.spec))


def ours_with(
    sizes: Mapping[str, int] | None,
) -> Callable[[Inputs], Callable[[], tuple[Tensor, ...]]]:
    """The kernels, into buffers that serve every layer, with the tuned sizes or others."""

    def ours(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        plan = window_plan(given.spec, given.video.device, sizes)
        buffers = AttentionBuffers.like(given.video, plan)
        for field in fields(AttentionBuffers):
            if isinstance(room := getattr(buffers, field.name), Tensor):
                poisoned(room)
        return lambda: _both(window_attention(given.video, given.text, given.norm, plan, buffers))

    return ours


def grouped(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """As the static graphs have it: a batch for each shape of window."""
    return without_gradients(_grouped(given))


def compiled(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """The same by torch.compile."""
    return without_gradients(torch.compile(_grouped(given), dynamic=False))


def _grouped(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    spec, norm, video, text = given.spec, given.norm, given.video, given.text
    windows = GroupedWindows(
        spec.grid, spec.shifted, spec.text_tokens, spec.head_width, spec.rope, rotate_halves
    ).to(video.device, video.dtype)
    angles = [
        table.to(video.device, video.dtype)
        for table in text_rotation(spec.rope, spec.text_tokens, spec.head_width)
    ]
    assert norm.text_q is not None
    text_q = norm.text_q

    def call() -> tuple[Tensor, ...]:
        x = windows.arrange(video)
        q, k = _normed(x[:, 0], norm.video_q), _normed(x[:, 1], norm.video_k)
        heads = Heads(_normed(text[:, 0], text_q), _normed(text[:, 1], norm.text_k), text[:, 2])
        heads = rotate_text(heads, (angles[0], angles[1]), rotate_halves)
        out, of_text = windows(Heads(q, k, x[:, 2]), heads)
        assert of_text is not None
        return out.view_as(video[:, 0]), of_text.view_as(text[:, 0])

    return call


def packed(given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """All windows one after the other, and flash attention of sequences of many lengths."""
    from torch.nn.attention.varlen import varlen_attn

    spec, norm, device = given.spec, given.norm, given.video.device
    tables = packed_windows(spec.grid, spec.shifted, spec.text_tokens)
    longest = int(np.diff(tables.starts).max())
    index, starts = (torch.from_numpy(t).to(device) for t in (tables.index, tables.starts))
    of_video = torch.nonzero(index < spec.video_tokens).flatten()
    place = torch.argsort(index[of_video])
    of_text = torch.nonzero(index >= spec.video_tokens).flatten()
    back = of_video[place]  # where each video token's result lies
    cos, sin = (torch.from_numpy(t).to(given.video)[:, None] for t in rotary_rows(spec))
    assert norm.text_q is not None
    text_q = norm.text_q

    def call() -> tuple[Tensor, ...]:
        video, text = given.video, given.text
        q = torch.cat([_normed(video[:, 0], norm.video_q), _normed(text[:, 0], text_q)])
        k = torch.cat([_normed(video[:, 1], norm.video_k), _normed(text[:, 1], norm.text_k)])
        v = torch.cat([video[:, 2], text[:, 2]])
        q, k = rotate_halves(q, cos, sin), rotate_halves(k, cos, sin)
        q, k, v = (x.index_select(0, index) for x in (q, k, v))
        out = varlen_attn(q, k, v, starts, starts, longest, longest)
        assert isinstance(out, Tensor)
        texts = out.index_select(0, of_text).unflatten(0, (tables.count, -1))
        return out.index_select(0, back), texts.mean(0)

    return without_gradients(call)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, 1e-5)


def _both(given: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
    video, text = given
    assert text is not None
    return video, text


def work(spec: WindowSpec, heads: int) -> Work:
    """Scores and sums over every window's own length; qkv read and the result written once."""
    lengths = np.diff(packed_windows(spec.grid, spec.shifted, spec.text_tokens).starts)
    tokens = spec.video_tokens + spec.text_tokens
    return Work(
        unit="wide",
        flops=4.0 * spec.head_width * heads * float((lengths.astype(float) ** 2).sum()),
        bytes=2.0 * (3 + 1) * tokens * heads * spec.head_width,
    )


def case(name: str, spec: WindowSpec, heads: int, importance: int, timed: bool) -> Case:
    """One partition of one grid."""
    return Case(
        name=f"window_attention {name}{', shifted' if spec.shifted else ''}",
        kernel="window_attention",
        importance=importance,
        work=work(spec, heads),
        limit=LIMIT,
        make=make(spec, heads),
        reference=reference,
        ways={OURS: ours_with(None), f"{PYTORCH} SDPA": grouped, FLASH: packed, COMPILED: compiled},
        shape={"tokens": spec.video_tokens, "heads": heads, "head_width": spec.head_width},
        timed=timed,
        tunable=Tunable(
            table="window_attention",
            key={"head_width": spec.head_width},
            options=partial(tuned, "window_attention", head_width=spec.head_width),
            way=ours_with,
        ),
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:
        spec = WindowSpec(
            grid=(2, 3, 5), shifted=True, text_tokens=3, head_width=32, rope="language"
        )
        found = case("2 x 3 x 5", spec, 1, 0, True)
        on_cpu = {name: way for name, way in found.ways.items() if name != FLASH}
        return [replace(found, ways=on_cpu)]
    made = []
    for name, (model, grid, importance) in SIZES.items():
        heads, rope = MODELS[model]
        for shifted in (False, True):
            spec = WindowSpec(
                grid=grid, shifted=shifted, text_tokens=TEXT, head_width=WIDTH, rope=rope
            )
            made.append(case(name, spec, heads, importance, True))
    ragged = WindowSpec(grid=(5, 7, 5), shifted=True, text_tokens=9, head_width=64, rope="pixel")
    return [*made, case("ragged, head width 64", ragged, 3, 0, False)]
