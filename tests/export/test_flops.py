"""What folding saves of the full-size networks' arithmetic, at 720p and 21 frames."""

import pytest

from vr_trt.export.config import GENERATOR_3B, GENERATOR_7B, VAE, GeneratorConfig, VaeConfig
from vr_trt.export.flops import TEXT_TOKENS, Counts, all_counts, coder_counts, main
from vr_trt.export.vae import Encoder
from vr_trt.kernels.windows import partition

GRID = (6, 45, 80)
PIXELS = 720 * 1280


@pytest.fixture(scope="module")
def counts() -> dict[str, Counts]:
    return {row.stage: row for row in all_counts()}


@pytest.mark.parametrize(
    ("stage", "per_pixel"), [("encode_step", 9.04e6), ("decode_step", 23.67e6)]
)
def test_plain_steps_are_those_of_the_specification(
    stage: str, per_pixel: float, counts: dict[str, Counts]
) -> None:
    assert counts[stage].plain == pytest.approx(4 * PIXELS * per_pixel, rel=1e-3)


@pytest.mark.parametrize(("stage", "total"), [("generator 3b", 115e12), ("generator 7b", 184e12)])
def test_plain_generators_are_those_of_the_specification(
    stage: str, total: float, counts: dict[str, Counts]
) -> None:
    assert counts[stage].plain == pytest.approx(total, rel=5e-3)


@pytest.mark.parametrize("stage", ["decode_start", "decode_step"])
def test_sub_pixel_upsampling_saves_a_fifth_of_the_decoder(
    stage: str, counts: dict[str, Counts]
) -> None:
    assert 0.18 <= counts[stage].saved < 0.25


@pytest.mark.parametrize("stage", ["encode_image", "decode_image"])
def test_a_picture_needs_a_third(stage: str, counts: dict[str, Counts]) -> None:
    assert 0.6 < counts[stage].saved < 0.75


@pytest.mark.parametrize(("stage", "frames"), [("encode_start", 5), ("encode_step", 4)])
def test_the_encoder_loses_the_variance(stage: str, frames: int, counts: dict[str, Counts]) -> None:
    latents = (frames + 3) // 4 * PIXELS // 64
    saved = counts[stage].plain - counts[stage].folded
    assert saved == 2 * latents * VAE.latent_channels * VAE.channels[-1] * 27


def saved_by_folding(config: GeneratorConfig) -> int:
    """Timestep, prompt, mask, and the last block's text but for its keys and values."""
    width, inner, text = config.width, config.heads * config.head_width, TEXT_TOKENS
    tokens = GRID[0] * GRID[1] * GRID[2]
    embedding = 256 * width + width * width + width * 6 * width
    prompt = text * config.text_width * width
    mask = tokens * 4 * width
    last = 2 * text * width * inner  # queries and output
    for (t0, t1), (h0, h1), (w0, w1) in partition(GRID, shifted=config.layers % 2 == 0):
        size = (t1 - t0) * (h1 - h0) * (w1 - w0)
        last += 2 * text * (size + text) * inner  # scores and their sums
    if config.last_block_text:
        last += 2 * text * width * config.mlp_width
    return 2 * (embedding + prompt + mask + last)


@pytest.mark.parametrize(
    ("stage", "config"), [("generator 3b", GENERATOR_3B), ("generator 7b", GENERATOR_7B)]
)
def test_the_generator_loses_exactly_what_is_constant(
    stage: str, config: GeneratorConfig, counts: dict[str, Counts]
) -> None:
    assert counts[stage].plain - counts[stage].folded == saved_by_folding(config)


def test_all_stages_are_counted_and_none_grows(counts: dict[str, Counts]) -> None:
    parts = ("image", "start", "step")
    stages = [f"{side}_{part}" for side in ("encode", "decode") for part in parts]
    assert list(counts) == [*stages, "generator 3b", "generator 7b"]
    assert all(row.saved > 0 for row in counts.values())


def test_the_command_prints_a_row_a_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Counts(stage="decode_step", plain=4 * 10**12, folded=3 * 10**12)
    monkeypatch.setattr("vr_trt.export.flops.all_counts", lambda: [row])
    main()
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["stage", "plain", "TF", "folded", "TF", "saved"]
    assert line.split() == ["decode_step", "4.00", "3.00", "25.00%"]


def test_counts_grow_with_the_picture() -> None:
    config = VaeConfig(channels=(4, 4, 4, 4), groups=2)
    small, wide = (coder_counts(Encoder, "image", config, 32, width) for width in (32, 64))
    assert 1.9 < wide.plain / small.plain < 2.5
