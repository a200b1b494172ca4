from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vr_trt.export.pixels import Resample, ToModel, ToModelSub, ToVideo, ToVideoSub
from vr_trt.kernels.resample import (
    AxisSiting,
    chroma_down_matrix,
    chroma_up_matrix,
    resize_matrix,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "pipe_tiny.safetensors"


@dataclass(frozen=True)
class Codes:
    """YUV code values by the formulas of BT.601 and BT.709, written out."""

    kr: float
    kb: float
    bits: int
    full_range: bool

    def of(self, rgb: np.ndarray) -> np.ndarray:  # [..., 3] in 0..1
        r, g, b = np.moveaxis(rgb, -1, 0)
        luma = self.kr * r + (1 - self.kr - self.kb) * g + self.kb * b
        cb = (b - luma) / (2 * (1 - self.kb))
        cr = (r - luma) / (2 * (1 - self.kr))
        top, step = 2**self.bits - 1, 2 ** (self.bits - 8)
        if self.full_range:
            return np.stack((luma * top, cb * top + 128 * step, cr * top + 128 * step), -1)
        return np.stack((16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr), -1) * step

    @property
    def from_rgb(self) -> Tensor:  # [3, 4]
        offset = self.of(np.zeros(3))
        matrix = np.column_stack((self.of(np.eye(3)).T - offset[:, None], offset))
        return torch.tensor(matrix, dtype=torch.float32)

    @property
    def to_rgb(self) -> Tensor:  # [3, 4]
        forward = self.from_rgb.double()
        inverse = forward[:, :3].inverse()
        return torch.cat((inverse, -inverse @ forward[:, 3:]), 1).float()


BT601 = Codes(0.299, 0.114, 8, full_range=False)
BT709 = Codes(0.2126, 0.0722, 8, full_range=False)
BT709_10 = Codes(0.2126, 0.0722, 10, full_range=False)
JPEG = Codes(0.299, 0.114, 8, full_range=True)


def resize_matrices(
    source: tuple[int, int], out: tuple[int, int], padded: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """rows and cols for sizes (height, width)."""
    rows, cols = (resize_matrix(*sizes) for sizes in zip(source, out, padded, strict=True))
    return torch.from_numpy(rows), torch.from_numpy(cols).T


def relative_rms(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def test_golden_resize_and_network_input() -> None:
    golden = load_file(GOLDEN)
    r, g, b = golden["video_u8_tchw"].unbind(1)  # [5, 21, 37] each
    identity = torch.cat((torch.eye(3) / 255, torch.zeros(3, 1)), 1)
    rows, cols = resize_matrices((21, 37), (42, 74), (48, 80))
    resized = Resample()(golden["video_u8_tchw"] / 255, rows, cols)
    assert relative_rms(resized[..., :42, :74], golden["resized"]) <= 2e-5

    x = ToModel()(r, g, b, identity, rows, cols)
    assert x.shape == (1, 3, 5, 48, 80)
    # The reference crops the middle to multiples of 16 where we pad.
    assert relative_rms(x[0, :, :, 5:37, 5:69], golden["vae_in_cthw"]) <= 2e-5
    torch.testing.assert_close(x[..., 42:, :], x[..., 41:42, :].expand_as(x[..., 42:, :]))
    torch.testing.assert_close(x[..., 74:], x[..., 73:74].expand_as(x[..., 74:]))


@pytest.mark.parametrize("codes", [BT601, BT709, BT709_10, JPEG])
def test_colours_reach_the_network_and_come_back(codes: Codes) -> None:
    rgb = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.3, 0.5, 0.7]])
    depth = torch.uint8 if codes.bits == 8 else torch.uint16
    planes = [
        torch.from_numpy(plane.astype(np.int32)).reshape(1, 1, 6).to(depth)
        for plane in codes.of(rgb).round().clip(0, 2**codes.bits - 1).T
    ]
    x = ToModel()(*planes, codes.to_rgb, *resize_matrices((1, 6), (1, 6), (16, 16)))
    given = (x[0, :, 0, 0, :6].T + 1) / 2
    torch.testing.assert_close(given, torch.tensor(rgb).float(), atol=4 / 2**codes.bits, rtol=0)

    limits = torch.tensor([0.0, 2.0**codes.bits - 1])
    video = ToVideo("none", depth)(x, x, codes.from_rgb, torch.full((1, 6), 0.5), limits)
    for plane, original in zip(video, planes, strict=True):
        assert plane.dtype == depth
        difference = plane.to(torch.int32) - original.to(torch.int32)
        # The corners of the RGB cube are clamped to it on the way.
        assert difference.abs().max() <= 1


@pytest.mark.parametrize("factors", [(2, 2), (2, 1), (4, 1)])
@pytest.mark.parametrize(
    "sitings",  # across and down: left, center, top left
    [("co-sited", "center"), ("center", "center"), ("co-sited", "co-sited")],
)
@pytest.mark.parametrize("size", [(24, 32), (17, 33)])
def test_subsampled_colour_survives_the_way_through(
    factors: tuple[int, int], sitings: tuple[AxisSiting, AxisSiting], size: tuple[int, int]
) -> None:
    height, width = size
    h, w = -(-height // factors[1]), -(-width // factors[0])
    up = [
        torch.from_numpy(chroma_up_matrix(*axis))
        for axis in ((height, h, factors[1], sitings[1]), (width, w, factors[0], sitings[0]))
    ]
    down = [
        torch.from_numpy(chroma_down_matrix(*axis))
        for axis in ((height, h, factors[1], sitings[1]), (width, w, factors[0], sitings[0]))
    ]
    rise, run = np.mgrid[0 : 1 : h * 1j, 0 : 1 : w * 1j]
    y = torch.full((2, height, width), 120, dtype=torch.uint8)
    u = torch.from_numpy((110 + 40 * run).round().astype(np.uint8)).repeat(2, 1, 1)
    v = torch.from_numpy((140 - 30 * rise).round().astype(np.uint8)).repeat(2, 1, 1)
    padded = (32, 48)
    x = ToModelSub()(y, u, v, BT709.to_rgb, *resize_matrices(size, size, padded), up[0], up[1].T)
    assert x.shape == (1, 3, 2, *padded)
    video = ToVideoSub("wavelet", torch.uint8)(
        x, x, BT709.from_rgb, torch.full(size, 0.5), torch.tensor([0.0, 255.0]), down[0], down[1].T
    )
    for plane, original in zip(video, (y, u, v), strict=True):
        assert plane.shape == original.shape
        assert (plane.int() - original.int()).abs().max() <= 1


def gray_video(level: float, dither: Tensor, limits: tuple[float, float]) -> tuple[Tensor, ...]:
    """A picture whose every code value is `level`, written with full-range 8 bits."""
    x = torch.full((1, 3, 1, 16, 16), level / 255 * 2 - 1)
    from_rgb = torch.cat((torch.eye(3) * 255, torch.zeros(3, 1)), 1)
    video: tuple[Tensor, ...] = ToVideo("none", torch.uint8)(
        x, x, from_rgb, dither, torch.tensor(limits)
    )
    return video


def test_dither_keeps_the_mean_of_a_level_between_two_codes() -> None:
    thresholds = torch.arange(256).add(0.5).div(256).reshape(16, 16)
    for plane in gray_video(100.3, thresholds, (0, 255)):
        assert set(plane.unique().tolist()) == {100, 101}
        assert plane.double().mean() == pytest.approx(100.3, abs=1 / 256)


def test_limits_bound_the_codes_and_the_crop_is_the_dithers_size() -> None:
    rounding = torch.full((5, 9), 0.5)
    for level, code in ((0.0, 16), (255.0, 235), (99.6, 100)):
        for plane in gray_video(level, rounding, (16, 235)):
            assert plane.shape == (1, 5, 9)
            assert plane.unique().tolist() == [code]


def test_the_correction_looks_at_the_picture_not_at_its_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    x, reference = torch.rand((2, 1, 3, 1, 32, 48), generator=generator) * 2 - 1
    dither, limits = torch.full((20, 28), 0.5), torch.tensor([0.0, 255.0])
    for fix in ("wavelet", "adain"):
        video = ToVideo(fix, torch.uint8)
        expected = video(x, reference, JPEG.from_rgb, dither, limits)
        other_x, other_reference = x.clone(), reference.clone()
        other_x[..., 20:, :] = other_reference[..., 28:] = 7.0
        given = video(other_x, other_reference, JPEG.from_rgb, dither, limits)
        for plane, wanted in zip(given, expected, strict=True):
            assert torch.equal(plane, wanted)
