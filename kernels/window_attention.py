"""Attention inside windows with the text in every window, from the fused qkv tensors.

Dimension key: N video tokens, L text tokens, H heads, D head width, nW windows, S tokens of one
and the text. Source: network spec §4.1. Three launches:

1. `rotated_keys_kernel`: the keys of video and text, normalised and rotated, each once.
2. `window_attention_kernel`: everything else, from gather to scatter.
3. `window_mean_kernel`: the text's mean over windows, in a fixed order, so without atomics.

Why keys first, and not inside 2: a window has S = 868 at 21 frames of 720p, seven blocks of 128
queries, and each would prepare all of its keys anew. For 128 keys of width 128 that is about 12
operations on 16 k elements, 1500 cycles of a Hopper multiprocessor's lanes, beside 2048 cycles of
products. Once, it moves N * H * D values in and out: 220 MB for the 3B, 51 µs at 4.3 TB/s, where a
layer's products take 390 µs at 500 TFLOP/s. A query belongs to one block: it is prepared in 2.

Pairs that rotate are halves (j, j + D / 2), as folding orders them; 3B and 7B differ in tables.
"""

from math import e, log2, sqrt
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.aot import Compiled, compile_for
from vr_trt.kernels.fp8 import quantised
from vr_trt.kernels.tuning import capability_of, tuned
from vr_trt.kernels.window_call import EPS, AttentionBuffers, QkNorm, WindowPlan, check_call
from vr_trt.kernels.window_tables import WindowSpec, packed_windows, rotary_rows

if TYPE_CHECKING:
    from torch import Tensor


def window_attention_reference(
    video: "Tensor",  # [N, 3, H, D]
    text: "Tensor",  # [L, 3, H, D], or [L, 2, H, D]: keys and values
    norm: QkNorm,
    spec: WindowSpec,
) -> "tuple[Tensor, Tensor | None]":
    """Attended video [N, H, D] and text [L, H, D], window after window, in the inputs' dtype."""
    import torch
    from torch.nn import functional as F

    cos, sin = (torch.from_numpy(table).to(video)[:, None] for table in rotary_rows(spec))
    N, half = spec.video_tokens, spec.head_width // 2

    def prepared(x: "Tensor", weight: "Tensor", rows: slice) -> "Tensor":
        x = F.rms_norm(x, x.shape[-1:], weight.to(x), norm.eps)
        a, b, c, s = x[..., :half], x[..., half:], cos[rows], sin[rows]
        return torch.cat([a * c - b * s, b * c + a * s], -1)

    of_video, of_text = slice(0, N), slice(N, None)
    q = prepared(video[:, 0], norm.video_q, of_video)
    if norm.text_q is not None:
        q = torch.cat([q, prepared(text[:, 0], norm.text_q, of_text)])
    text_k = prepared(text[:, -2], norm.text_k, of_text)
    k = torch.cat([prepared(video[:, 1], norm.video_k, of_video), text_k])
    v = torch.cat([video[:, 2], text[:, -1]])
    out, texts = torch.empty_like(q[:N]), []
    windows = packed_windows(spec.grid, spec.shifted, spec.text_tokens)
    for start, stop in zip(windows.starts[:-1], windows.starts[1:], strict=True):
        rows = torch.from_numpy(windows.index[start:stop]).long().to(video.device)
        own = rows[: len(rows) - spec.text_tokens]
        queries = rows if spec.text_queries else own
        own_q, own_k, own_v = (
            x[i].transpose(0, 1)[None] for x, i in ((q, queries), (k, rows), (v, rows))
        )
        attended = F.scaled_dot_product_attention(own_q, own_k, own_v)[0].transpose(0, 1)
        out[own] = attended[: len(own)]
        texts.append(attended[len(own) :])
    return out, torch.stack(texts).float().mean(0).to(out) if spec.text_queries else None


@triton.jit
def _prepared(a, b, weight_a, weight_b, cos, sin, SCALE, EPS, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """RMSNorm of rows in two halves [rows, D / 2], weights, SCALE and rotation, all in fp32."""
    a, b = a.to(tl.float32), b.to(tl.float32)
    norm = SCALE * tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + EPS)[:, None]
    a, b = a * norm * weight_a.to(tl.float32), b * norm * weight_b.to(tl.float32)
    return a * cos - b * sin, b * cos + a * sin


@triton.jit
def rotated_keys_kernel(  # type: ignore[no-untyped-def]
    video,  # [N, 3, H, D]
    text,  # [L, TEXT_PARTS, H, D], keys and values last
    video_weight,  # [D]
    text_weight,
    cos,  # [N + L, D / 2] fp32
    sin,
    keys,  # [N + L, H, D], out
    N,
    L,
    EPS: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    TEXT_PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Each program: ROWS rows of the video, or of the text, and HEADS heads of each.

    Without a loop: its loads could not be issued before the stores of the pass before.
    """
    HALF: tl.constexpr = D // 2
    half = tl.arange(0, HALF)[None, :]
    block = tl.program_id(0) * ROWS
    of_text = block >= N
    if of_text:  # its blocks begin after the video's, which are whole ones
        block -= tl.cdiv(N, ROWS) * ROWS
        before = N
        rows = L
        weight = text_weight
        source = text + (TEXT_PARTS - 2) * H * D
    else:
        before = 0
        rows = N
        weight = video_weight
        source = video + H * D
    stride = tl.where(of_text, TEXT_PARTS * H * D, 3 * H * D)
    vector = tl.arange(0, ROWS * HEADS)[:, None]
    row = (block + vector // HEADS).to(tl.int64)
    head = tl.program_id(1) * HEADS + vector % HEADS
    inside = (row < rows) & (head < H)
    here = source + row * stride + head * D + half
    a = tl.load(here, mask=inside, other=0.0)
    b = tl.load(here + HALF, mask=inside, other=0.0)
    angle = (before + row) * HALF + half
    c, s = (
        tl.load(cos + angle, mask=inside, other=0.0),
        tl.load(sin + angle, mask=inside, other=0.0),
    )
    weight_a, weight_b = tl.load(weight + half), tl.load(weight + HALF + half)
    a, b = _prepared(a, b, weight_a, weight_b, c, s, 1.0, EPS, D)
    there = keys + ((before + row) * H + head) * D + half
    tl.store(there, a.to(keys.dtype.element_ty), mask=inside)
    tl.store(there + HALF, b.to(keys.dtype.element_ty), mask=inside)


@triton.jit
def window_attention_kernel(  # type: ignore[no-untyped-def]
    video,  # [N, 3, H, D]
    text,  # [L, TEXT_PARTS, H, D]
    keys,  # [N + L, H, D], from rotated_keys_kernel
    video_weight,  # [D], of the queries' norm
    text_weight,
    cos,  # [N + L, D / 2] fp32
    sin,
    index,  # of PackedWindows
    tiles,
    video_scale,  # [1] fp32 of fp8; not read unless QUANTISES
    video_out,  # [N, H, D]
    text_out,  # [nW, L, H, D]
    N,
    L,
    SCALE: tl.constexpr,  # of the scores, times log2(e)
    EPS: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    TEXT_PARTS: tl.constexpr,
    QUANTISES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,  # blocks of keys of one pass
):
    """Each program: one head, one tile of a window's queries, all of the window's keys.

    Places beyond the end read the last row again, so that no load has a mask.
    """
    HALF: tl.constexpr = D // 2
    VIDEO: tl.constexpr = 3 * H * D  # elements of a row
    TEXT: tl.constexpr = TEXT_PARTS * H * D
    head = tl.program_id(0) * D
    tile = tiles + tl.program_id(1) * 5
    index += tl.load(tile)
    first, queries, length = tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    half, d = tl.arange(0, HALF)[None, :], tl.arange(0, D)[None, :]

    # Row numbers of keys are read one block ahead, into registers: a load that waits for another
    # within the same pass would be pipelined half as deep.
    k_place = tl.arange(0, BLOCK_K)
    next_row = tl.load(index + tl.minimum(k_place, length - 1))
    place = first + tl.arange(0, BLOCK_Q)
    row = tl.load(index + tl.minimum(place, queries - 1)).to(tl.int64)
    of_text = row >= N
    q_row = tl.where(of_text, text + (row - N) * TEXT, video + row * VIDEO)[:, None] + head
    of, ours, theirs = of_text[:, None], text_weight + half, video_weight + half
    weight_a = tl.where(of, tl.load(ours), tl.load(theirs))
    weight_b = tl.where(of, tl.load(ours + HALF), tl.load(theirs + HALF))
    angle = row[:, None] * HALF + half
    q_a, q_b = _prepared(
        tl.load(q_row + half), tl.load(q_row + HALF + half), weight_a, weight_b,
        tl.load(cos + angle), tl.load(sin + angle), SCALE, EPS, D,
    )  # fmt: skip
    q = tl.join(q_a, q_b).permute(0, 2, 1).reshape(BLOCK_Q, D).to(keys.dtype.element_ty)

    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    attended = tl.zeros([BLOCK_Q, D], tl.float32)
    for k_first in tl.range(0, length, BLOCK_K, loop_unroll_factor=UNROLL):
        k_row = next_row.to(tl.int64)
        next_row = tl.load(index + tl.minimum(k_first + BLOCK_K + k_place, length - 1))
        k = tl.load((keys + k_row * (H * D))[:, None] + head + d)
        score = tl.dot(q, k.T, input_precision="ieee")
        score = tl.where((k_first + k_place < length)[None, :], score, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(score, 1))
        share = tl.exp2(score - new_highest[:, None])
        fade = tl.exp2(highest - new_highest)
        total = total * fade + tl.sum(share, 1)
        v_of_text = text + (k_row - N) * TEXT + (TEXT_PARTS - 1) * H * D
        v_row = tl.where(k_row >= N, v_of_text, video + k_row * VIDEO + 2 * H * D)
        v = tl.load(v_row[:, None] + head + d)
        attended = tl.dot(share.to(v.dtype), v, attended * fade[:, None], input_precision="ieee")
        highest = new_highest

    window = tl.load(tile + 4).to(tl.int64)
    out_of_text = text_out + (window * L + row - N) * (H * D)
    out_of_video = video_out + row * (H * D)
    attended = attended / total[:, None]
    if QUANTISES:  # the video, of which each row is whole; the text's mean comes first
        codes = quantised(attended, tl.load(video_scale), video_out.dtype.element_ty)
        own = ((place < queries) & (row < N))[:, None]
        tl.store(out_of_video[:, None] + head + d, codes, mask=own)
        mine = attended.to(text_out.dtype.element_ty)
        theirs = ((place < queries) & of_text)[:, None]
        tl.store(out_of_text[:, None] + head + d, mine, mask=theirs)
    else:
        out_row = tl.where(of_text, out_of_text, out_of_video)
        attended = attended.to(video_out.dtype.element_ty)
        tl.store(out_row[:, None] + head + d, attended, mask=(place < queries)[:, None])


@triton.jit
def window_mean_kernel(  # type: ignore[no-untyped-def]
    windows,  # [count, size]
    scale,  # [1] fp32 of fp8; not read unless QUANTISES
    mean,  # [size]
    count,
    size,
    QUANTISES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program: BLOCK elements, over all windows, in fp32."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    total = tl.zeros([BLOCK], tl.float32)
    for window in range(count):
        here = windows + tl.cast(window, tl.int64) * size + i
        total += tl.load(here, mask=inside, other=0.0).to(tl.float32)
    if QUANTISES:
        out = quantised(total / count, tl.load(scale), mean.dtype.element_ty)
    else:
        out = (total / count).to(mean.dtype.element_ty)
    tl.store(mean + i, out, mask=inside)


def window_attention(
    video: "Tensor",  # [N, 3, H, D] fp16 or bf16, contiguous
    text: "Tensor",  # [L, 3, H, D]; [L, 2, H, D], keys and values, where it has no queries
    norm: QkNorm,
    plan: WindowPlan,
    buffers: AttentionBuffers | None = None,
) -> "tuple[Tensor, Tensor | None]":
    """`window_attention_reference` by the kernels: video [N, H, D], and text [L, H, D] or None.

    fp32 is taken on the CPU only, where Triton interprets. TypeError or ValueError for tensors that
    the kernels cannot read.
    """
    buffers = buffers or AttentionBuffers.like(video, plan)
    check_call(video, text, norm, plan, buffers)
    N, L = plan.spec.video_tokens, plan.spec.text_tokens
    H, D = video.shape[2:]
    shape = {"EPS": norm.eps, "H": H, "D": D, "TEXT_PARTS": text.shape[1]}
    chip = capability_of(video.device)
    keys = tuned("rotated_keys", chip)
    blocks = triton.cdiv(N, keys["ROWS"]) + triton.cdiv(L, keys["ROWS"])
    rotated_keys_kernel[(blocks, triton.cdiv(H, keys["HEADS"]))](
        video, text, norm.video_k, norm.text_k, plan.cos, plan.sin, buffers.keys, N, L,
        **shape, **keys,
    )  # fmt: skip
    text_q = norm.video_q if norm.text_q is None else norm.text_q  # of no row then
    window_attention_kernel[(H, len(plan.tiles))](
        video, text, buffers.keys, norm.video_q, text_q, plan.cos, plan.sin, plan.index,
        plan.tiles, plan.cos if buffers.video_scale is None else buffers.video_scale,
        buffers.video_out, buffers.text_windows, N, L,
        SCALE=log2(e) / sqrt(D), QUANTISES=buffers.video_scale is not None,
        **shape, **plan.sizes,
    )  # fmt: skip
    if not plan.spec.text_queries:
        return buffers.video_out, None
    mean, size = tuned("window_mean", chip), buffers.text_out.numel()
    window_mean_kernel[(triton.cdiv(size, mean["BLOCK"]),)](
        buffers.text_windows, plan.cos if buffers.text_scale is None else buffers.text_scale,
        buffers.text_out, plan.windows, size,
        QUANTISES=buffers.text_scale is not None, **mean,
    )  # fmt: skip
    return buffers.video_out, buffers.text_out


def compile_attention(
    kind: str, heads: int, head_width: int, chip: int, text_parts: int = 3, *, codes: bool = False
) -> Compiled:
    """The attention kernel for `kind`, "fp16" or "bf16", as tuned for `chip`, ahead of time.

    With `codes` the video's output is E4M3.
    """
    tensors = ("video", "text", "keys", "video_weight", "text_weight", "video_out", "text_out")
    signature = dict.fromkeys(tensors, f"*{kind}:16") | {"N": "i32", "L": "i32"}
    signature |= {"video_out": "*fp8e4nv:16"} if codes else {}
    signature |= dict.fromkeys(("cos", "sin", "video_scale"), "*fp32:16")
    signature |= dict.fromkeys(("index", "tiles"), "*i32:16")
    shape = {"H": heads, "D": head_width, "TEXT_PARTS": text_parts, "EPS": EPS, "QUANTISES": codes}
    sizes = tuned("window_attention", chip, head_width=head_width)
    constants = {"SCALE": log2(e) / sqrt(head_width), **shape, **sizes}
    return compile_for(window_attention_kernel, signature, constants, chip)
