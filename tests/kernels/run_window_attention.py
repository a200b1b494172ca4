"""Window attention against its plain reference; run by test_window_attention, see kernel_runs."""

from dataclasses import fields, replace

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, HALVES, error_ratio, poisoned
from torch import Tensor

from vr_trt.kernels.fp8 import quantised_reference
from vr_trt.kernels.rope import Rope
from vr_trt.kernels.window_attention import window_attention, window_attention_reference
from vr_trt.kernels.window_call import AttentionBuffers, QkNorm, WindowPlan, window_plan
from vr_trt.kernels.window_tables import WindowSpec, packed_windows
from vr_trt.kernels.windows import Grid

ON = torch.device(DEVICE)
# In fp32 the kernel is for the interpreter alone.
TAKEN = FLOATS if DEVICE == "cpu" else HALVES
# We must be as near to the truth, taken in fp64, as plain PyTorch in our precision is, roughly.
LARGEST_RATIO = {torch.float32: 2.5, torch.float16: 1.2, torch.bfloat16: 1.2}
# Small blocks, so that windows are longer than one; on a GPU the tuned ones.
SIZES = (
    None
    if DEVICE == "cuda"
    else {"BLOCK_Q": 32, "BLOCK_K": 64, "UNROLL": 1, "num_warps": 4, "num_stages": 2}
)
GRIDS: dict[str, tuple[Grid, bool, int]] = {  # token grid, whether shifted, text tokens
    "one token": ((1, 1, 1), False, 1),
    "one frame": ((1, 5, 7), False, 3),
    "ragged": ((5, 7, 5), True, 9),
    "a column": ((3, 11, 1), False, 2),
    "many blocks": ((2, 9, 13), True, 58),
    "no text": ((2, 3, 5), False, 0),
}


class Case:
    """Random queries, keys and values whose norms, weights and text matter."""

    def __init__(self, spec: WindowSpec, heads: int = 2, seed: int = 0) -> None:
        self.spec, D = spec, spec.head_width
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.video = 2 * normal(spec.video_tokens, 3, heads, D)
        self.text = 3 * normal(spec.text_tokens, 3 if spec.text_queries else 2, heads, D)
        video_q, video_k, text_k, text_q = (1 + 0.3 * normal(D) for _ in range(4))
        self.norm = QkNorm(
            video_q=video_q, video_k=video_k, text_k=text_k,
            text_q=text_q if spec.text_queries else None,
        )  # fmt: skip

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, QkNorm]:
        """Video, text and norms on the device."""
        return self.video.to(ON, dtype), self.text.to(ON, dtype), self.norm.to(ON, dtype)

    def ratios(self, dtype: torch.dtype) -> list[float]:
        """Of the video's and the text's error to those of the reference in the same dtype."""
        video, text, norm = self.inputs(dtype)
        plan = window_plan(self.spec, ON, SIZES)
        ours = window_attention(video, text, norm, plan, poisoned_buffers(video, plan))
        plain = window_attention_reference(video, text, norm, self.spec)
        exact = window_attention_reference(
            video.double(), text.double(), norm.to(ON, torch.float64), self.spec
        )
        assert (ours[1] is None) == (exact[1] is None) == (not self.spec.text_queries)
        return [
            error_ratio(a, b, c)
            for a, b, c in zip(ours, plain, exact, strict=True)
            if a is not None and b is not None and c is not None and len(a)
        ]


def poisoned_buffers(video: Tensor, plan: WindowPlan) -> AttentionBuffers:
    """Outputs of which every element must be written, and scratch that must be before it is read."""
    shapes = AttentionBuffers.like(video, plan)
    tensors = {f.name: getattr(shapes, f.name) for f in fields(AttentionBuffers)}
    return AttentionBuffers(
        **{k: poisoned(*v.shape, dtype=v.dtype) for k, v in tensors.items() if v is not None}
    )


@pytest.mark.parametrize("dtype", TAKEN, ids=str)
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("rope", "head_width"), [("language", 64), ("pixel", 128)])
def test_kernel_equals_reference(
    rope: Rope, head_width: int, name: str, dtype: torch.dtype
) -> None:
    grid, shifted, text = GRIDS[name]
    spec = WindowSpec(
        grid=grid, shifted=shifted, text_tokens=text, head_width=head_width, rope=rope
    )
    assert max(Case(spec).ratios(dtype)) <= LARGEST_RATIO[dtype]


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
def test_windows_in_rows_and_columns(shifted: bool) -> None:
    spec = WindowSpec(grid=(1, 30, 40), shifted=shifted, text_tokens=5, head_width=32, rope="pixel")
    assert packed_windows(spec.grid, shifted, 5).count >= 4
    assert max(Case(spec, heads=1).ratios(torch.float16)) <= LARGEST_RATIO[torch.float16]


@pytest.mark.parametrize("dtype", TAKEN, ids=str)
@pytest.mark.parametrize("rope", ["language", "pixel"])
def test_text_without_queries(rope: Rope, dtype: torch.dtype) -> None:
    spec = WindowSpec(
        grid=(3, 5, 4), shifted=True, text_tokens=5, head_width=32, rope=rope, text_queries=False
    )
    assert max(Case(spec, heads=3).ratios(dtype)) <= LARGEST_RATIO[dtype]


SPEC = WindowSpec(grid=(5, 6, 7), shifted=True, text_tokens=4, head_width=32, rope="language")


def test_a_window_sees_itself_and_the_text_only() -> None:
    """Whatever happens in one window leaves every other's video as it is, bit for bit."""
    video, text, norm = Case(SPEC).inputs(torch.float16)
    plan = window_plan(SPEC, ON, SIZES)
    windows = packed_windows(SPEC.grid, True, SPEC.text_tokens)
    own = torch.from_numpy(windows.index[: windows.starts[1] - SPEC.text_tokens]).long().to(ON)
    before, _ = window_attention(video, text, norm, plan)
    video[own] += 1
    after, _ = window_attention(video, text, norm, plan)
    changed = (before != after).flatten(1).any(1)
    assert changed[own].all() and not changed.index_fill(0, own, False).any()


@pytest.mark.parametrize("both", [True, False], ids=["both", "the video"])
def test_outputs_end_in_fp8_where_they_have_a_scale(both: bool) -> None:
    """The codes of what it gives in 16 bits, but for those at the edge between two."""
    video, text, norm = Case(SPEC).inputs(torch.float16)
    plan = window_plan(SPEC, ON, SIZES)
    wanted = window_attention(video, text, norm, plan)
    plain = poisoned_buffers(video, plan)
    scales = [torch.full((1,), s, device=ON) for s in (2.0**-7, 2.0**-8)]
    codes = [
        poisoned(*x.shape, dtype=torch.float8_e4m3fn) for x in (plain.video_out, plain.text_out)
    ]
    buffers = replace(plain, video_out=codes[0], video_scale=scales[0])
    if both:
        buffers = replace(buffers, text_out=codes[1], text_scale=scales[1])
    ours = window_attention(video, text, norm, plan, buffers)
    for given, wide, scale in zip(ours, wanted, scales, strict=True):
        assert given is not None and wide is not None
        if given.dtype == torch.float16:
            torch.testing.assert_close(given, wide, rtol=2**-10, atol=1e-6)  # a step
            continue
        expected = quantised_reference(wide, scale).float()
        off = (given.float() - expected).abs() > 0
        assert not given.float().isnan().any() and off.float().mean() <= 0.02
        step = 0.13 * expected.abs().clamp_min(2**-6)
        assert ((given.float() - expected).abs() <= step).all()


def test_the_same_bits_every_time() -> None:
    inputs = Case(SPEC).inputs(torch.float16)
    plan = window_plan(SPEC, ON, SIZES)
    (video, text), (again, text_again) = (window_attention(*inputs, plan) for _ in range(2))
    assert text is not None and text_again is not None
    assert torch.equal(video, again) and torch.equal(text, text_again)


def test_text_in_every_window_counts_alike() -> None:
    """The mean over windows, whatever their sizes."""
    video, text, norm = Case(SPEC).inputs(torch.float32 if DEVICE == "cpu" else torch.float16)
    plan = window_plan(SPEC, ON, SIZES)
    buffers = poisoned_buffers(video, plan)
    _, mean = window_attention(video, text, norm, plan, buffers)
    assert mean is not None and plan.windows == 3  # of one, two and two frames
    wanted = buffers.text_windows.double().mean(0)
    torch.testing.assert_close(mean.double(), wanted, rtol=2e-3, atol=1e-3)
