"""The convolution against its plain reference; run by test_conv3d, see `tests.kernel_runs`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, HALVES, error_ratio, poisoned

from vr_trt.kernels import conv3d as module
from vr_trt.kernels import conv_sizes
from vr_trt.kernels.conv3d import conv3d, conv3d_reference
from vr_trt.kernels.conv_layer import (
    PLAIN,
    ConvForm,
    Extras,
    PackedConv,
    Prologue,
    bordered,
    inside,
    pack_conv,
    pack_sub_pixel,
    quantise,
)
from vr_trt.kernels.conv_sizes import conv_tiles, tuned_sizes
from vr_trt.kernels.group_norm import (
    Moments,
    Norm,
    empty_moments,
    scale_shift,
    scale_shift_reference,
)

# Of our rounding error to PyTorch's own in the same dtype. On a GPU fp32 is nobody's precision: the
# kernel shall be right, in whatever order its library adds.
WORST_RATIO = {torch.float32: 1.2 if DEVICE == "cpu" else 30.0, **dict.fromkeys(HALVES, 1.2)}
STRIDED = ConvForm(stride_t=2, stride=2)
HALF_PICTURE = ConvForm(taps=1, stride=2)
POINT = ConvForm(taps=1, kernel=1)
PICTURE = ConvForm(taps=1)
Size = tuple[int, int, int]  # frames, rows, columns
Width = tuple[int, int]  # input and output channels


@dataclass(frozen=True)
class Case:
    form: ConvForm
    size: Size
    width: Width
    past: int | None = None  # frames; None: a shot's start

    def __str__(self) -> str:
        form = self.form
        kernel = f"{form.taps}x{form.kernel}s{form.stride_t}{form.stride}u{form.up_t}{form.up}"
        return f"{kernel}-{self.size}-{self.width}-{self.past}".replace(" ", "")


CASES = [
    Case(ConvForm(), (1, 1, 1), (8, 8)),
    Case(ConvForm(), (1, 1, 1), (8, 8), past=2),
    Case(ConvForm(), (3, 7, 9), (24, 40), past=2),
    Case(ConvForm(), (2, 9, 13), (40, 24)),
    Case(ConvForm(), (1, 5, 70), (16, 3), past=2),
    Case(ConvForm(), (2, 33, 3), (3, 16)),
    Case(PICTURE, (1, 11, 6), (24, 33)),
    Case(HALF_PICTURE, (2, 8, 6), (16, 24)),
    Case(HALF_PICTURE, (1, 7, 9), (8, 8)),
    Case(STRIDED, (5, 8, 10), (16, 24)),
    Case(STRIDED, (4, 6, 14), (16, 24), past=1),
    Case(POINT, (2, 9, 8), (40, 72)),
]


def every(cases: list[Any], halves: list[Any]) -> Iterator[tuple[Any, torch.dtype]]:
    """Cases by precision: on a GPU all of both; in the interpreter, which is slow, some in 16 bits."""
    for dtype in FLOATS:
        few = DEVICE == "cpu" and dtype != torch.float32
        yield from ((case, dtype) for case in (halves if few else cases))


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def pictures(frames: int, size: Size, channels: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    _, height, width = size
    x = bordered(frames, height, width, channels, torch.empty(0, dtype=dtype, device=DEVICE))
    inside(x).copy_(numbers(frames, height, width, channels, seed=seed))
    return x


def layer(form: ConvForm, width: Width, dtype: torch.dtype) -> PackedConv:
    taps = form.taps, form.kernel, form.kernel
    weight = numbers(width[1] * form.phases, width[0], *taps, seed=1)
    scale = (width[0] * form.taps * form.kernel**2) ** -0.5
    return pack_conv(weight * scale, numbers(len(weight), seed=2), form, dtype)


def problem(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, PackedConv, Extras]:
    conv = layer(case.form, case.width, dtype)
    x = pictures(case.size[0], case.size, conv.channels, 3, dtype)
    past = None
    if case.past is not None:
        past = pictures(case.past, case.size, conv.channels, 4, dtype)
    return x, conv, Extras(past=past)


def output(x: torch.Tensor, conv: PackedConv, extras: Extras, dtype: torch.dtype) -> torch.Tensor:
    shape = (len(x), x.shape[1] - 2, x.shape[2] - 2)
    frames, rows, columns = conv.form.shape(shape, extras.lead_of(conv))
    return inside(poisoned(frames, rows + 2, columns + 2, conv.outputs, dtype=dtype))


def moments_of(
    x: torch.Tensor, conv: PackedConv, frames: int, sizes: dict[str, int] | None = None
) -> Moments:
    """Room for the moments of `frames` frames of `conv`'s output, filled with NaN."""
    sizes = sizes or tuned_sizes(x, conv, PLAIN)
    tiles = conv_tiles(conv, x.shape[1] - 2, x.shape[2] - 2, sizes)
    room = empty_moments(frames, tiles, conv.outputs, conv.bias)
    room.values.fill_(torch.nan)
    room.counts.fill_(torch.nan)
    return room


def check(x: torch.Tensor, conv: PackedConv, extras: Extras, dtype: torch.dtype) -> None:
    exact = conv3d_reference(x, conv, extras, torch.float64)
    plain = conv3d_reference(x, conv, extras, dtype)
    ours = conv3d(x, conv, output(x, conv, extras, dtype), extras)
    assert error_ratio(ours, plain, exact) < WORST_RATIO[dtype]
    room = ours._base
    assert room is not None  # nothing was written around the output
    assert room[:, 0].isnan().all() and room[:, :, -1].isnan().all()


@pytest.mark.parametrize(("case", "dtype"), [*every(CASES, CASES[2:4])], ids=str)
def test_kernel_equals_reference(case: Case, dtype: torch.dtype) -> None:
    check(*problem(case, dtype), dtype)


def sub_pixel(width: int, frames: int, taps: int, *, edge: bool, dtype: torch.dtype) -> PackedConv:
    weight = numbers(4 * frames * width, width + edge, taps, 2, 2, seed=5)
    weight *= (4 * taps * width) ** -0.5
    return pack_sub_pixel(weight, numbers(width, seed=6).repeat(4 * frames), width, dtype)


PAIRS = [  # whole tiles and ragged ones, one pair and two, a shot's start and a step
    Case(ConvForm(), (2, 1, 1), (8, 8), past=2),
    Case(ConvForm(), (4, 7, 9), (24, 40), past=2),
    Case(ConvForm(), (4, 9, 13), (40, 24)),
]


@pytest.mark.parametrize("descriptors", [False, True], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_two_frames_a_program(
    case: Case, descriptors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a residual and moments; on a GPU it decides by itself about descriptors."""
    dtype = torch.bfloat16 if descriptors else torch.float32
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "uses_descriptors", lambda x, conv: descriptors)
    x, conv, extras = problem(case, dtype)
    plain = conv_sizes._INTERPRETED | {"num_warps": 4, "num_stages": 2}
    sizes = plain | {"BLOCK_M": 64, "FRAMES": 2}
    out = output(x, conv, extras, dtype)
    residual = inside(numbers(*out._base.shape, seed=19, dtype=dtype))  # type: ignore[union-attr]
    extras = replace(extras, residual=residual, moments=moments_of(x, conv, len(out), sizes))
    conv3d(x, conv, out, extras, sizes)
    exact = conv3d_reference(x, conv, extras, torch.float64)
    assert error_ratio(out, conv3d_reference(x, conv, extras, dtype), exact) < WORST_RATIO[dtype]
    norm = Norm(
        weight=numbers(conv.outputs, seed=14), bias=numbers(conv.outputs, seed=15), groups=4
    )
    assert extras.moments is not None
    torch.testing.assert_close(
        scale_shift(extras.moments, norm).double(),
        scale_shift_reference(out.double(), norm),
        rtol=3e-5,
        atol=3e-5,
    )


def test_frames_that_make_no_pairs_are_refused() -> None:
    sizes = conv_sizes._INTERPRETED | {"FRAMES": 2}
    for case in (CASES[2], CASES[9]):  # three frames; strided
        x, conv, extras = problem(case, torch.float32)
        with pytest.raises(ValueError, match="one by one"):
            conv3d(x, conv, output(x, conv, extras, torch.float32), extras, sizes)


SUB_PIXELS = [  # frames, taps, size, past, lead
    (1, 1, (1, 5, 7), None, 0),  # a shot's first frame
    (2, 2, (2, 1, 1), None, 0),  # its second
    (2, 2, (3, 6, 5), 1, None),  # time doubled
    (1, 3, (2, 3, 11), 2, None),  # time kept
    (1, 3, (2, 4, 4), None, None),
]


@pytest.mark.parametrize(("case", "dtype"), [*every(SUB_PIXELS, SUB_PIXELS[:1])], ids=str)
def test_sub_pixel(case: tuple[int, int, Size, int | None, int | None], dtype: torch.dtype) -> None:
    frames, taps, size, past, lead = case
    conv = sub_pixel(24, frames, taps, edge=True, dtype=dtype)
    x = pictures(size[0], size, conv.channels, 7, dtype)
    before = None if past is None else pictures(past, size, conv.channels, 8, dtype)
    check(x, conv, Extras(past=before, lead=lead), dtype)


PROLOGUES = [(CASES[2], True), (CASES[10], True), (CASES[11], False)]


@pytest.mark.parametrize(("case", "dtype"), [*every(PROLOGUES, PROLOGUES[2:])], ids=str)
def test_prologue_and_residual(case: tuple[Case, bool], dtype: torch.dtype) -> None:
    """Zero is put around the activated picture: the border may hold anything."""
    (problem_case, silu) = case
    x, conv, extras = problem(problem_case, dtype)
    norm = Prologue(
        scale_shift=numbers(len(x), 2, conv.channels, seed=9),
        past=None if extras.past is None else numbers(len(extras.past), 2, conv.channels, seed=10),
        silu=silu,
    )
    for picture in (x, *(() if extras.past is None else (extras.past,))):
        picture[:, 0], picture[:, :, -1] = 7.0, torch.inf
    extras = replace(extras, prologue=norm)
    like = output(x, conv, extras, dtype)
    room = numbers(*like._base.shape, seed=11, dtype=dtype)  # type: ignore[union-attr]
    check(x, conv, replace(extras, residual=inside(room)), dtype)


def test_residual_in_place() -> None:
    x, conv, extras = problem(CASES[2], torch.float32)
    out = output(x, conv, extras, torch.float32)
    out.copy_(numbers(*out.shape, seed=12))
    extras = replace(extras, residual=out)
    wanted = conv3d_reference(x, conv, extras)
    torch.testing.assert_close(conv3d(x, conv, out, extras), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "offset"), [(torch.float32, 300.0), *((half, 0.0) for half in HALVES)], ids=str
)
@pytest.mark.parametrize("which", ["plain", "strided", "sub-pixel"])
def test_moments_of_what_was_written(which: str, offset: float, dtype: torch.dtype) -> None:
    """Also where the mean is far from zero, and for tiles that a frame does not fill."""
    if which == "sub-pixel":
        conv = sub_pixel(24, 2, 2, edge=False, dtype=dtype)
        x, extras = pictures(3, (3, 6, 13), conv.channels, 13, dtype), Extras(lead=0)
    else:
        x, conv, extras = problem(CASES[2] if which == "plain" else CASES[10], dtype)
    conv = replace(conv, bias=conv.bias + offset)
    out = output(x, conv, extras, dtype)
    moments = moments_of(x, conv, len(out))
    conv3d(x, conv, out, replace(extras, moments=moments))
    channels = conv.outputs
    assert moments.counts.sum(1).eq(out.shape[1] * out.shape[2]).all()
    norm = Norm(
        weight=numbers(channels, seed=14), bias=numbers(channels, seed=15), groups=channels // 4
    )
    wanted = scale_shift_reference(out.double(), norm)
    torch.testing.assert_close(
        scale_shift(moments, norm).double(), wanted, rtol=3e-5, atol=3e-5 * max(1.0, offset)
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("which", ["past", "start", "sub-pixel"])
def test_tiles_by_descriptor(
    which: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on sm_90 and later: the interpreter knows descriptors too. A GPU decides by itself."""
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "uses_descriptors", lambda x, conv: True)
    if which == "sub-pixel":
        conv = sub_pixel(24, 2, 2, edge=True, dtype=dtype)
        check(pictures(2, (2, 6, 13), conv.channels, 13, dtype), conv, Extras(lead=0), dtype)
    else:
        check(*problem(CASES[2] if which == "past" else CASES[3], dtype), dtype)


@pytest.mark.parametrize("case", CASES[2:4], ids=str)
def test_fp8(case: Case) -> None:
    """Products of E4M3 numbers are exact in fp32: only the order of the sums differs.

    And on sm_90 their bits, of which about 14 are kept (reported elsewhere).
    """
    conv = layer(case.form, (32, 24), torch.float32)
    conv = quantise(conv, input_scale=0.5)
    x = pictures(case.size[0], case.size, 32, 16, torch.float32).mul(4).to(torch.float8_e4m3fn)
    past = None
    if case.past is not None:
        past = pictures(case.past, case.size, 32, 17, torch.float32).to(torch.float8_e4m3fn)
    extras = Extras(past=past)
    ours = conv3d(x, conv, output(x, conv, extras, torch.float16), extras)
    wanted = conv3d_reference(x, conv, extras)
    step = 2e-3 if DEVICE == "cpu" else 1e-2
    torch.testing.assert_close(ours.float(), wanted, rtol=step, atol=step * float(wanted.std()))


def test_frames_beyond_the_reach_of_32_bits() -> None:
    """Only the last of many frames: its first element is number 2^31 and more."""
    if DEVICE != "cuda":
        frames, size = 3, (3, 2, 3)
    else:
        frames, size = 2200, (2200, 126, 126)
    conv = layer(ConvForm(), (64, 16), torch.float16)
    x = bordered(frames, *size[1:], 64, torch.empty(0, dtype=torch.float16, device=DEVICE))
    inside(x)[-3:].copy_(numbers(3, *size[1:], 64, seed=18))
    out = torch.full((frames, *size[1:], 16), torch.nan, dtype=torch.float16, device=DEVICE)
    conv3d(x, conv, out)
    wanted = conv3d_reference(x[-3:], conv, Extras(past=x[-5:-3] if frames > 4 else None))
    torch.testing.assert_close(out[-1:].float(), wanted[-1:], rtol=5e-3, atol=5e-3)
