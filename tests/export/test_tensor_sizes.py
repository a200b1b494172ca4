"""No tensor of a VAE that is cut by resolution has 2^31 elements at 1080p; whole, some have."""

from dataclasses import replace

import pytest

from vr_trt.engines.profiles import load_profiles
from vr_trt.export.config import VAE
from vr_trt.export.stages import StageShape
from vr_trt.export.tensor_sizes import CANVASES, LIMIT, largest_tensors
from vr_trt.runtime.canvas import canvas


def sizes(profile: str, *, cut: bool) -> dict[str, int]:
    width, height = CANVASES[profile]
    shape = StageShape(height=height, width=width, latents=6)
    return {row.stage: row.elements for row in largest_tensors(shape, cut=cut)}


def test_1080p_cut_by_resolution_stays_below_the_limit() -> None:
    found = sizes("1080p", cut=True)
    assert len(found) == 10 and max(found.values()) < LIMIT
    # Three frames of 256 channels, padded, before the first convolution at full resolution.
    assert found["decode_fine_step"] == 256 * 3 * 1090 * 1922
    # The scores of two frames' attention: the nearest to the limit, 0.8 % below it.
    assert found["decode_coarse_start"] == 2 * (136 * 240) ** 2 == 2_130_739_200


def test_1080p_whole_does_not() -> None:
    found = sizes("1080p", cut=False)
    over = {stage for stage, elements in found.items() if elements >= LIMIT}
    assert over == {"decode_start", "decode_step"}
    assert found["decode_step"] == 256 * 6 * 1090 * 1922


def test_720p_needs_no_cut() -> None:
    assert max(sizes("720p", cut=False).values()) < LIMIT


def test_1440p_is_over_it_even_when_cut() -> None:
    """Said in docs/engines.md: attention's scores, and three frames of 256 channels."""
    over = {stage for stage, elements in sizes("1440p", cut=True).items() if elements >= LIMIT}
    assert over == {
        *("encode_coarse_start", "encode_coarse_step", "encode_image"),
        *("decode_coarse_start", "decode_coarse_step", "decode_image"),
        *("decode_fine_start", "decode_fine_step"),
    }


@pytest.mark.parametrize("name", CANVASES)
def test_the_canvases_are_the_profiles(name: str) -> None:
    row = canvas(16, 9, load_profiles()[name].short_side)
    assert CANVASES[name] == (row.padded_w, row.padded_h)


def test_longer_steps_have_larger_tensors() -> None:
    config = replace(VAE, channels=(32, 32, 32, 32))
    shape = StageShape(height=256, width=256, latents=2)
    one, two = (
        {row.stage: row.elements for row in largest_tensors(s, cut=False, config=config)}
        for s in (shape, replace(shape, step=2))
    )
    assert one["decode_image"] == two["decode_image"]
    assert one["decode_step"] < two["decode_step"] <= 2 * one["decode_step"]
