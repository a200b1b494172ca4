"""The convolution to few channels against the convolution's reference; see kernel_runs."""

import pytest
import torch
from tests.kernel_runs import DEVICE, FLOATS, poisoned

from vr_trt.kernels import conv_few as module
from vr_trt.kernels.conv3d import conv3d_reference
from vr_trt.kernels.conv_few import conv_few, few_reference, goes_by_taps, pack_few
from vr_trt.kernels.conv_layer import ConvForm, Extras, PackedConv, bordered, inside, pack_conv

# Frames, rows, columns, channels and outputs: one pixel; odd, with more than one tile of pixels.
SIZES = [(1, 1, 1, 8, 1), (3, 5, 9, 24, 3), (2, 11, 17, 40, 4)]
# Of the output alone; in fp32 of two orders of sums, on a GPU of a library's.
STEP = {
    torch.float32: 1e-6 if DEVICE == "cpu" else 1e-5,
    torch.float16: 5e-4,
    torch.bfloat16: 4e-3,
}


def layer(channels: int, outputs: int, dtype: torch.dtype, taps: int = 3) -> PackedConv:
    random = torch.Generator().manual_seed(outputs)
    shape = outputs, channels, taps, 3, 3
    weight = torch.randn(*shape, generator=random) / (9 * taps * channels) ** 0.5
    bias = torch.randn(outputs, generator=random)
    return pack_conv(weight.to(DEVICE), bias.to(DEVICE), ConvForm(taps=taps), dtype)


def pictures(frames: int, rows: int, columns: int, channels: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    x = bordered(frames, rows, columns, channels, torch.zeros(1, device=DEVICE))
    inside(x).copy_(torch.randn(frames, rows, columns, channels, generator=random))
    return x


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["step", "start", "picture"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernels_equal_the_convolution(
    size: tuple[int, int, int, int, int], kind: str, dtype: torch.dtype
) -> None:
    frames, rows, columns, channels, outputs = size
    conv = layer(channels, outputs, dtype, 1 if kind == "picture" else 3)
    x = pictures(frames, rows, columns, channels, 1).to(dtype)
    past = pictures(2, rows, columns, channels, 2).to(dtype) if kind == "step" else None
    wanted = conv3d_reference(x, conv, Extras(past=past))
    few = pack_few(conv)
    torch.testing.assert_close(few_reference(x, few, past), wanted, rtol=1e-5, atol=1e-5)
    room = poisoned(*few.room(frames, rows, columns), dtype=torch.float32)
    out = poisoned(frames, rows, columns, outputs, dtype=dtype)
    assert conv_few(x, few, out, room, past) is out
    error = (out.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error <= STEP[dtype]  # which NaN is not


def test_other_layers_are_refused() -> None:
    wide, form = layer(8, 5, torch.float32), ConvForm(stride_t=2, stride=2)
    strided = pack_conv(torch.zeros(3, 8, 3, 3, 3), torch.zeros(3), form, torch.float32)
    for conv in (wide, strided):
        assert not goes_by_taps(conv, 90)
        with pytest.raises(ValueError, match="3x3 to 4 channels"):
            pack_few(conv)
    few, x = pack_few(layer(8, 3, torch.float32)), pictures(1, 2, 3, 8, 1)
    with pytest.raises(ValueError, match=r"columns is \(1, 27, 20\), not \(1, 27, 32\)"):
        conv_few(x, few, x.new_empty(1, 2, 3, 3), x.new_empty(1, 27, 20))


def test_the_table_says_which_layers_go_by_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = layer(8, 3, torch.float32)
    for row, expected in (((1, 8), False), ((2, 8), False), ((3, 8), True), ((4, 9), False)):
        sizes = dict(zip(("UP_TO", "FROM"), row, strict=True))
        monkeypatch.setattr(module, "tuned", lambda kernel, chip, sizes=sizes: sizes)
        assert goes_by_taps(conv, 90) is expected
