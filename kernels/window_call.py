"""The arguments of a window attention: weights of its norms, tables of a partition, buffers.

Dimension key: N video tokens, L text tokens, H heads, D head width, nW windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vr_trt.kernels.checks import check_tensor
from vr_trt.kernels.fp8 import check_scale
from vr_trt.kernels.tuning import capability_of, tuned
from vr_trt.kernels.window_tables import WindowSpec, packed_windows, rotary_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EPS = 1e-5
_LARGEST_GRID = 65535  # programs along a launch's second axis


@dataclass(frozen=True, kw_only=True, slots=True)
class QkNorm:
    """The weights [D] of the norms of queries and keys; the text's queries may have none."""

    video_q: "Tensor"
    video_k: "Tensor"
    text_k: "Tensor"
    text_q: "Tensor | None" = None
    eps: float = EPS

    def to(self, device: "torch.device", dtype: "torch.dtype") -> "QkNorm":
        """The same weights, elsewhere or of another kind."""
        names = ("video_q", "video_k", "text_k", "text_q")
        weights: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(
            self, **{k: w.to(device, dtype) for k, w in weights.items() if w is not None}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPlan:
    """The tables of one partition, on the device, and how the kernel is cut there."""

    spec: WindowSpec
    windows: int
    index: "Tensor"  # int32, see PackedWindows
    tiles: "Tensor"
    cos: "Tensor"  # [N + L, D / 2] fp32
    sin: "Tensor"
    sizes: Mapping[str, int]  # BLOCK_Q, BLOCK_K, num_warps, num_stages


def window_plan(
    spec: WindowSpec, device: "torch.device", sizes: Mapping[str, int] | None = None
) -> WindowPlan:
    """The plan for `spec` on `device`, with the tuned sizes unless others are given."""
    import torch

    if spec.head_width & (spec.head_width - 1) or spec.head_width < 32:
        raise ValueError(f"window_attention takes head widths 32, 64, 128…, not {spec.head_width}")
    sizes = sizes or tuned("window_attention", capability_of(device), head_width=spec.head_width)
    packed = packed_windows(spec.grid, spec.shifted, spec.text_tokens)
    tiles = packed.tiles(sizes["BLOCK_Q"], 0 if spec.text_queries else spec.text_tokens)
    if len(tiles) > _LARGEST_GRID:
        raise ValueError(f"window_attention: {len(tiles)} tiles are too many: use fewer frames")
    cos, sin = (torch.from_numpy(table).to(device) for table in rotary_rows(spec))
    index, places = (torch.from_numpy(table).to(device) for table in (packed.index, tiles))
    return WindowPlan(
        spec=spec, windows=packed.count, index=index, tiles=places, cos=cos, sin=sin, sizes=sizes
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionBuffers:
    """What an attention writes; the same ones may serve layer after layer.

    Outputs are of the inputs' dtype, or E4M3 where they have a scale.
    """

    video_out: "Tensor"  # [N, H, D]
    text_out: "Tensor"  # [L, H, D]
    keys: "Tensor"  # [N + L, H, D], scratch
    text_windows: "Tensor"  # [nW, L, H, D], scratch
    video_scale: "Tensor | None" = None  # [1] fp32
    text_scale: "Tensor | None" = None

    @classmethod
    def like(cls, video: "Tensor", plan: WindowPlan) -> "AttentionBuffers":
        """New ones, of the dtype and on the device of `video` [N, 3, H, D]."""
        N, L, head = plan.spec.video_tokens, plan.spec.text_tokens, video.shape[2:]
        texts = plan.windows if plan.spec.text_queries else 0
        return cls(
            video_out=video.new_empty(N, *head),
            text_out=video.new_empty(L if plan.spec.text_queries else 0, *head),
            keys=video.new_empty(N + L, *head),
            text_windows=video.new_empty(texts, L, *head),
        )


def check_call(
    video: "Tensor", text: "Tensor", norm: QkNorm, plan: WindowPlan, buffers: AttentionBuffers
) -> None:
    """TypeError or ValueError unless every tensor is as the kernels of `window_attention` read it."""
    import torch

    allowed = (torch.float16, torch.bfloat16) + ((torch.float32,) if video.is_cpu else ())
    if video.dtype not in allowed:
        raise TypeError(f"window_attention takes fp16 or bf16, not {video.dtype}")
    spec = plan.spec
    N, L, D, parts = spec.video_tokens, spec.text_tokens, spec.head_width, 2 + spec.text_queries
    H = video.shape[2] if video.ndim == 4 else 0
    if spec.text_queries and norm.text_q is None:
        raise ValueError("window_attention: the text has queries but no weights of their norm")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "video": (video, (N, 3, H, D)),
        "text": (text, (L, parts, H, D)),
        "video_out": (buffers.video_out, (N, H, D)),
        "text_out": (buffers.text_out, (L if spec.text_queries else 0, H, D)),
        "keys": (buffers.keys, (N + L, H, D)),
        "text_windows": (buffers.text_windows, (plan.windows * spec.text_queries, L, H, D)),
        **{
            name: (getattr(norm, name), (D,)) for name in ("video_q", "video_k", "text_k", "text_q")
        },
    }
    scales = {"video_out": buffers.video_scale, "text_out": buffers.text_scale}
    for name, (tensor, shape) in wanted.items():
        dtype = video.dtype
        if (scale := scales.get(name)) is not None:
            check_scale(f"window_attention: {name}", scale, plan.cos[:1])  # not one a row
            dtype = torch.float8_e4m3fn
        if tensor is not None:
            check_tensor(f"window_attention: {name}", tensor, shape, dtype, plan.index.device)
