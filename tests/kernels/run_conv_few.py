"""The convolution to few channels against the convolution's reference; see kernel_runs."""

import pytest
import torch
from tests.kernel_runs import DEVICE, DOT_FLOATS, poisoned

from vr_trt.kernels.conv3d import conv3d_reference
from vr_trt.kernels.conv_few import conv_few, few_reference, pack_few
from vr_trt.kernels.conv_layer import ConvForm, Extras, PackedConv, bordered, inside, pack_conv

# Frames, rows, columns, channels and outputs: one pixel; odd, with more than one tile of pixels.
SIZES = [(1, 1, 1, 8, 1), (3, 5, 9, 24, 3), (2, 11, 17, 40, 4)]
STEP = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def layer(channels: int, outputs: int, dtype: torch.dtype) -> PackedConv:
    random = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, channels, 3, 3, 3, generator=random) / (27 * channels) ** 0.5
    return pack_conv(
        weight.to(DEVICE), torch.randn(outputs, generator=random).to(DEVICE), ConvForm(), dtype
    )


def pictures(frames: int, rows: int, columns: int, channels: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    x = bordered(frames, rows, columns, channels, torch.zeros(1, device=DEVICE))
    inside(x).copy_(torch.randn(frames, rows, columns, channels, generator=random))
    return x


@pytest.mark.parametrize("dtype", DOT_FLOATS, ids=str)
@pytest.mark.parametrize("streams", [True, False], ids=["step", "start"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernels_equal_the_convolution(
    size: tuple[int, int, int, int, int], streams: bool, dtype: torch.dtype
) -> None:
    frames, rows, columns, channels, outputs = size
    conv = layer(channels, outputs, dtype)
    x = pictures(frames, rows, columns, channels, 1).to(dtype)
    past = pictures(2, rows, columns, channels, 2).to(dtype) if streams else None
    wanted = conv3d_reference(x, conv, Extras(past=past))
    few = pack_few(conv)
    torch.testing.assert_close(few_reference(x, few, past), wanted, rtol=1e-5, atol=1e-5)
    plane = (rows + 2) * (columns + 2)
    room = poisoned(27 * outputs, (frames + 2 * streams) * plane, dtype=dtype)
    out = poisoned(frames, rows, columns, outputs, dtype=dtype)
    assert conv_few(x, few, out, room, past) is out
    error = (out.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error <= STEP[dtype]  # which NaN is not


def test_other_layers_are_refused() -> None:
    wide = pack_conv(torch.zeros(5, 8, 3, 3, 3), torch.zeros(5), ConvForm(), torch.float32)
    flat = pack_conv(torch.zeros(3, 8, 1, 3, 3), torch.zeros(3), ConvForm(taps=1), torch.float32)
    for conv in (wide, flat):
        with pytest.raises(ValueError, match="3x3x3 to 4 channels"):
            pack_few(conv)
    few, x = pack_few(layer(8, 3, torch.float32)), pictures(1, 2, 3, 8, 1)
    with pytest.raises(ValueError, match=r"room is \(81, 1\), not \(81, 20\)"):
        conv_few(x, few, x.new_empty(1, 2, 3, 3), x.new_empty(81, 1))
