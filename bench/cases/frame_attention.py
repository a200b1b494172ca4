"""The VAE's attention: one head of 512 over a frame's positions, in bf16.

The rival is PyTorch's scaled-dot-product attention, whichever of its kernels takes such a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vr_trt.bench.case import OURS, PYTORCH, Case, Tunable, sized
from vr_trt.bench.cases.networks import half, normal, poisoned
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.kernels.frame_attention import frame_attention, frame_attention_reference
from vr_trt.kernels.tuning import tuned

Size = tuple[int, int, int, int]  # frames, rows, columns, head width
SIZES: dict[str, Size] = {"720p": (1, 90, 160, 512), "1080p": (1, 136, 240, 512)}
AWKWARD: dict[str, Size] = {"one position": (2, 1, 1, 512), "odd": (2, 9, 37, 512)}
SMALL: dict[str, Size] = {"small": (1, 1, 7, 32)}
LIMIT = 8e-3


@dataclass(frozen=True, kw_only=True)
class Inputs:
    qkv: Tensor  # [F, H, W, 3 D] bf16
    out: Tensor  # [F, H, W, D]


def make(frames: int, rows: int, columns: int, head: int) -> Callable[[str, int], Inputs]:
    """Random queries, keys and values, and the output filled with NaN."""

    def inputs(device: str, seed: int) -> Inputs:
        qkv = normal(device, seed, frames, rows, columns, 3 * head).to(half(device))
        return Inputs(qkv=qkv, out=qkv.new_full((frames, rows, columns, head), torch.nan))

    return inputs


def ours_with(sizes: Mapping[str, int] | None) -> Callable[[Inputs], Callable[[], Tensor]]:
    """The kernel, with the tuned sizes or others."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        out = poisoned(given.out)
        return lambda: frame_attention(given.qkv, out, sizes)

    return way


def case(label: str, size: Size, timed: bool) -> Case:
    """One size."""
    frames, rows, columns, head = size
    positions = rows * columns
    return Case(
        name=f"frame_attention {label}",
        kernel="frame_attention",
        importance=2,
        work=Work(
            unit="wide",
            flops=4.0 * frames * positions**2 * head,
            bytes=2.0 * 4 * frames * positions * head,
        ),
        limit=LIMIT,
        make=make(*size),
        reference=lambda given: (frame_attention_reference(given.qkv.float()),),
        ways={
            OURS: ours_with(None),
            f"{PYTORCH} SDPA": lambda given: without_gradients(
                lambda: frame_attention_reference(given.qkv)
            ),
        },
        shape={"frames": frames, "positions": positions, "head_width": head},
        timed=timed,
        tunable=Tunable(
            table="frame_attention",
            key={"bits": 16},
            options=partial(tuned, "frame_attention", bits=16),
            way=ours_with,
        ),
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    return sized(case, small, tiny=SMALL, true=SIZES, awkward=AWKWARD)
