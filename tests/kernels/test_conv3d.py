"""The convolution: run by the interpreter or a GPU, and what it becomes on every chip."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.chips import PRODUCT, PRODUCT_FP8, QUICK, check_fits
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.export.causal import CausalConv3d, Stream
from vr_trt.export.sub_pixel import SubPixelConv, SubPixelUpsample
from vr_trt.kernels.aot import Compiled, compile_for
from vr_trt.kernels.conv3d import (
    conv3d,
    conv3d_kernel,
    conv3d_reference,
    conv_constants,
)
from vr_trt.kernels.conv_layer import (
    ConvForm,
    Extras,
    PackedConv,
    Prologue,
    bordered,
    inside,
    pack_conv,
    pack_sub_pixel,
    quantise,
    unpack,
)
from vr_trt.kernels.conv_sizes import sizes_for
from vr_trt.kernels.group_norm import Moments, empty_moments
from vr_trt.kernels.tuning import CHIPS

RUNS = Path(__file__).with_name("run_conv3d.py")
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float8_e4m3fn: "fp8e4nv"}


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=54)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=67)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lay(x: torch.Tensor) -> torch.Tensor:
    """[1, C, T, H, W] to pictures in a border."""
    frames = x[0].permute(1, 2, 3, 0)
    T, H, W, C = frames.shape
    out = bordered(T, H, W, C, like=x)
    inside(out).copy_(frames)
    return out


@pytest.mark.parametrize(
    "form",
    [ConvForm(), ConvForm(taps=1), ConvForm(taps=1, kernel=1), ConvForm(stride_t=2, stride=2)],
    ids=str,
)
def test_the_reference_is_the_network_s_convolution(form: ConvForm) -> None:
    """Whole and streamed, with the state as the network keeps it."""
    kernel, stride = (
        (form.taps, form.kernel, form.kernel),
        (form.stride_t, form.stride, form.stride),
    )
    plain = CausalConv3d((8, 5), kernel, stride=stride).double().requires_grad_(False)
    conv = pack_conv(plain.weight, plain.bias, form, torch.float64)  # type: ignore[arg-type]
    state: Stream | None = None
    for x in numbers(1, 8, 9, 6, 8).split([5, 4], 2):
        stream = Stream(state.next if state else None)
        wanted = plain(x, stream)[0].permute(1, 2, 3, 0)
        past = lay(stream.past[""]) if stream.past else None
        ours = conv3d_reference(lay(x), conv, Extras(past=past), torch.float64)
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)  # weights pass through fp32
        state = stream


@pytest.mark.parametrize("time", [True, False])
def test_the_reference_is_the_network_s_sub_pixel_convolution(time: bool) -> None:
    plain = SubPixelUpsample(8, time=time, video=True).double().requires_grad_(False)
    for seed, weight in enumerate(plain.parameters()):
        weight.copy_(numbers(*weight.shape, seed=seed))
    for name in ("step", "first", "second"):
        part = getattr(plain, name, None)
        if part is not None:  # the bias of one channel is that of all its phases
            part.bias.copy_(part.bias[:8].repeat(len(part.bias) // 8))
    packed = {
        name: pack_sub_pixel(part.weight, part.bias, 8, torch.float64)
        for name, part in plain.named_children()
        if isinstance(part, SubPixelConv)
    }
    start, step = numbers(1, 8, 2, 5, 3), numbers(1, 8, 2, 5, 3, seed=1)
    began = Stream()
    wanted = [plain(start, began), plain(step, Stream(began.next))]
    wanted = [y[0].permute(1, 2, 3, 0) for y in wanted]
    if time:
        first = conv3d_reference(lay(start[:, :, :1]), packed["first"], Extras(), torch.float64)
        second = conv3d_reference(lay(start), packed["second"], Extras(lead=0), torch.float64)
        ours = torch.cat([first, second])
    else:
        ours = conv3d_reference(lay(start), packed["step"], Extras(), torch.float64)
    torch.testing.assert_close(ours, wanted[0], rtol=1e-4, atol=1e-4)
    past = Extras(past=lay(began.next[""]))
    ours = conv3d_reference(lay(step), packed["step"], past, torch.float64)
    torch.testing.assert_close(ours, wanted[1], rtol=1e-4, atol=1e-4)


def test_weights_are_padded_to_whole_words_and_come_back() -> None:
    weight = numbers(5, 3, 3, 3, 3).float()
    conv = pack_conv(weight, torch.zeros(5), ConvForm(), torch.float32)
    assert (conv.channels, conv.outputs, conv.weight.shape) == (4, 5, (5, 27 * 4))
    back = unpack(conv)
    assert torch.equal(back[:, :3], weight) and not back[:, 3:].any()
    assert pack_conv(weight, torch.zeros(5), ConvForm(), torch.float16).channels == 8


def test_fp8_weights_have_a_scale_for_each_output() -> None:
    weight = numbers(4, 16, 1, 1, 1).float() * torch.tensor([1e-3, 1.0, 50.0, 0.0]).view(
        4, 1, 1, 1, 1
    )
    conv = pack_conv(weight, torch.zeros(4), ConvForm(taps=1, kernel=1), torch.float32)
    small = quantise(conv, input_scale=0.5)
    assert small.weight.float().abs().amax(1).tolist() == [448, 448, 448, 0]
    assert small.dequantise is not None
    back = small.weight.float() * small.dequantise[:, None] / 0.5
    assert ((back - conv.weight).abs() <= conv.weight.abs() * 2**-4 + 1e-7).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": torch.zeros(2, 6, 7, 9)}, "not"),
        ({"x": torch.zeros(6, 8)}, "not"),
        ({"x": torch.zeros(2, 6, 7, 8).half()}, "weights"),
        ({"x": torch.zeros(2, 8, 7, 6).transpose(1, 3)}, "not"),
        ({"out": torch.zeros(2, 4, 5, 13)}, "gives"),
        ({"out": torch.zeros(2, 12, 4, 5).permute(0, 2, 3, 1)}, "gives"),
        ({"past": torch.zeros(2, 6, 8, 8)}, "past"),
        ({"past": torch.zeros(2, 6, 7, 8).half()}, "past"),
        ({"residual": torch.zeros(2, 4, 5, 12).half()}, "residual"),
        ({"moments": empty_moments(2, 9, 12, torch.zeros(1))}, "moments of 2 frames in 1 tiles"),
        ({"prologue": Prologue(scale_shift=torch.zeros(2, 2, 8)), "past": torch.zeros(2, 6, 7, 8)},
         "prologue"),
    ],
)  # fmt: skip
def test_what_the_kernel_cannot_read_is_refused(change: dict[str, object], error: str) -> None:
    conv = pack_conv(torch.zeros(12, 8, 3, 3, 3), torch.zeros(12), ConvForm(), torch.float32)
    x = change.pop("x", torch.zeros(2, 6, 7, 8))
    out = change.pop("out", torch.zeros(2, 4, 5, 12))
    with pytest.raises((TypeError, ValueError), match=error):
        conv3d(x, conv, out, Extras(**change))  # type: ignore[arg-type]


def test_forms_that_the_vae_has_not_are_refused() -> None:
    for form in ({"up": 2}, {"kernel": 2}, {"kernel": 5}, {"up_t": 2}):
        with pytest.raises(ValueError, match="convolution has"):
            ConvForm(**form)
    with pytest.raises(ValueError, match="are not of"):
        pack_conv(torch.zeros(4, 4, 1, 3, 3), torch.zeros(4), ConvForm(), torch.float32)


@dataclass(frozen=True)
class Layer:
    """A layer of the VAE as it is run on a GPU."""

    channels: int
    outputs: int
    form: ConvForm = ConvForm()  # noqa: RUF009 (frozen)
    prologue: bool = False
    edge: bool = False
    residual: bool = True
    past: bool = True

    def __str__(self) -> str:
        form = self.form
        kind = f"{form.taps}{form.kernel}-s{form.stride}-u{form.up}" + "-norm" * self.prologue
        return f"{self.channels}-{self.outputs}-{kind}"


FULL, HALF = Layer(128, 128), Layer(256, 256)
DOUBLED = Layer(512, 512, ConvForm(taps=2, kernel=2, up_t=2, up=2), edge=True, residual=False)
QUERIES = Layer(512, 1536, ConvForm(taps=1, kernel=1), prologue=True, residual=False, past=False)
# The VAE runs none: a pass before it is cheaper (see kernels.conv3d). On sm_90 its products wait for
# what is normed, one after the other.
NORMED = Layer(128, 128, prologue=True)
OTHERS = [
    DOUBLED,
    QUERIES,
    Layer(256, 256, ConvForm(kernel=2, up=2), edge=True, residual=False),
    Layer(512, 512),
    Layer(256, 128, ConvForm(taps=1, kernel=1), past=False, residual=False),
    Layer(128, 256, ConvForm(stride_t=2, stride=2), residual=False),
    Layer(8, 128, residual=False),
    Layer(128, 3, residual=False),
    NORMED,
    Layer(56, 56),  # not a power of two, as nano has them
]


def meta_conv(layer: Layer, dtype: torch.dtype) -> PackedConv:
    form = layer.form
    rows = layer.outputs * form.phases

    def fp32(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    return PackedConv(
        form=form,
        channels=layer.channels,
        outputs=layer.outputs,
        weight=fp32(rows, form.taps * form.kernel**2 * layer.channels).to(dtype),
        bias=fp32(rows),
        edge=fp32(form.kernel**2, rows) if layer.edge else None,
        dequantise=fp32(rows) if dtype == torch.float8_e4m3fn else None,
    )


def compiled(
    layer: Layer, chip: int, dtype: torch.dtype, sizes: dict[str, int] | None = None
) -> Compiled:
    conv = meta_conv(layer, dtype)
    some = torch.empty(max(1, layer.form.taps - layer.form.stride_t), device="meta")
    extras = Extras(
        past=some if layer.past else None,
        prologue=Prologue(scale_shift=some, past=some) if layer.prologue else None,
        residual=some if layer.residual else None,
        moments=Moments(values=some, counts=some),
    )
    sizes = sizes or sizes_for(chip, conv, extras, 4)
    descriptors = chip >= 90 and layer.form.stride == 1
    kind, block_k = NAMES[dtype], sizes["BLOCK_K"]
    out = "fp16" if dtype == torch.float8_e4m3fn else kind
    pixels, weight = (
        f"tensordesc<{kind}[{sizes[block]},{block_k}]>" if descriptors else f"*{kind}:16"
        for block in ("BLOCK_M", "BLOCK_N")
    )
    aligned = ":16" if layer.outputs % 16 == 0 else ""
    signature = {
        "x": pixels, "past": pixels, "weight": weight,
        **dict.fromkeys(("bias", "edge", "dequantise", "scale_shift", "past_scale_shift",
                         "moments", "counts"), "*fp32:16"),
        "residual": f"*{out}:16", "y": f"*{out}:16",
        **dict.fromkeys(("frames", "rows", "columns", "height", "width"), "i32"),
        "y_frame": f"i64{aligned}", "y_row": f"i32{aligned}", "y_column": f"i32{aligned}",
    }  # fmt: skip
    constants = {**conv_constants(conv, extras), "DESCRIPTORS": descriptors, **sizes}
    return compile_for(conv3d_kernel, signature, constants, chip)


def check(
    layer: Layer, chip: int, dtype: torch.dtype, sizes: dict[str, int] | None = None
) -> Compiled:
    kernel = compiled(layer, chip, dtype, sizes)
    product = (PRODUCT_FP8 if dtype == torch.float8_e4m3fn else PRODUCT)[chip]
    assert kernel.count(product) > 0
    if chip == 90:
        assert kernel.count("HMMA", "QMMA") == 0
    check_fits(kernel, chip)
    assert layer == NORMED or not kernel.serialised
    if chip >= 90 and layer.form.stride == 1:
        assert kernel.count("UTMALDG") > 0  # the copy engine fetches the tiles
    else:
        assert kernel.count("LDGSTS.E.BYPASS.128") > 0 or layer.channels < 16
    return kernel


@pytest.mark.parametrize("chip", QUICK)
def test_the_full_resolution(chip: int) -> None:
    check(FULL, chip, torch.float16)


def test_fp8_of_hopper() -> None:
    check(HALF, 90, torch.float8_e4m3fn)


PAIRED = {"FRAMES": 2, "BLOCK_M": 128, "BLOCK_N": 128, "PARTS": 4, "num_warps": 8, "num_stages": 2}


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (FULL, torch.bfloat16),
        pytest.param(FULL, torch.float8_e4m3fn, marks=pytest.mark.slow),
        pytest.param(HALF, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(Layer(512, 512), torch.bfloat16, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_frames_a_program_on_hopper(layer: Layer, dtype: torch.dtype) -> None:
    """What bench/tune.py begins with, beside the table's sizes: two steps in 224 KiB."""
    sizes = PAIRED | {"BLOCK_K": 128 // dtype.itemsize}
    kernel = check(layer, 90, dtype, sizes)
    assert kernel.count("HGMMA", "QGMMA") == 2 * 6 * 4  # past and present, six products, four steps


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("layer", [FULL, HALF, *OTHERS], ids=str)
def test_every_layer_on_every_chip(layer: Layer, chip: int) -> None:
    check(layer, chip, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("chip", PRODUCT_FP8)
@pytest.mark.parametrize("layer", [FULL, HALF, Layer(512, 512), Layer(16, 16)], ids=str)
def test_fp8_of_every_chip_that_has_it(layer: Layer, chip: int) -> None:
    check(layer, chip, torch.float8_e4m3fn)
