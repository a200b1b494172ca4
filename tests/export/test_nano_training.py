"""nano's data, degradation and training, and the weights that are shipped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from vr_trt.export.config import VaeConfig, generator_3b_style
from vr_trt.export.generator import Generator
from vr_trt.export.nano.data import make_clip, photographs
from vr_trt.export.nano.degrade import (
    Degradation,
    compress,
    degrade,
    draw,
    draw_any,
    draw_light,
)
from vr_trt.export.nano.evaluate import load_nano, reconstruct, restore, to_pictures
from vr_trt.export.nano.identity_start import start_identity
from vr_trt.export.nano.losses import grid, picture_loss, psnr, squared_error, ssim
from vr_trt.export.nano.network import Nano, new_nano, recoloured
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.train import Trainer, clip_loss
from vr_trt.export.nano.training import Phase, Training, phase_at, train
from vr_trt.export.vae import Upsample, VideoVae, split_moments

TINY_VAE = VaeConfig(channels=(16, 24, 24, 24), encoder_resnets=1, decoder_resnets=1, groups=2)
TINY_GENERATOR = generator_3b_style(
    width=96, heads=1, head_width=32, layers=2, text_width=16, shared_from=1
)
FIRST = Phase(name="restore", steps=3, clips=1, frames=5, size=32, rate=1e-3, last_rate=1e-3)
SECOND = Phase(name="settle", steps=3, clips=2, frames=5, size=32, rate=1e-3, last_rate=1e-3)
WEIGHTS = Path(__file__).parents[2] / "export" / "nano" / "weights"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    spec = PoolSpec(seed=5, clips=4, frames=5, size=48)
    return open_pool(tmp_path_factory.mktemp("pool"), spec)


def held_out_clip(frames: int, size: int) -> Tensor:  # [1, 3, T, H, W] in -1..1
    """The coffee cup seen by a camera that moves a pixel a frame."""
    picture = photographs("held-out")["coffee"]
    clip = np.stack([picture[60:, 180 + t :][:size, :size] for t in range(frames)])
    return torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def test_clips_follow_their_seed() -> None:
    clip = make_clip(np.random.default_rng(3), "train", 5, 48)
    again = make_clip(np.random.default_rng(3), "train", 5, 48)
    other = make_clip(np.random.default_rng(4), "train", 5, 48)
    assert clip.shape == (5, 48, 48, 3) and clip.dtype == np.uint8
    assert np.array_equal(clip, again)
    assert not np.array_equal(clip, other)


def test_every_kind_of_picture_makes_a_clip() -> None:
    clips = [make_clip(np.random.default_rng(seed), "train", 1, 32) for seed in range(40)]
    assert all(clip.shape == (1, 32, 32, 3) for clip in clips)
    assert np.mean([clip.std() > 5 for clip in clips]) > 0.8


def test_held_out_pictures_are_not_trained_on() -> None:
    held_out, trained = photographs("held-out"), photographs("train")
    assert set(held_out) == {"coffee", "flower"}
    assert not set(held_out) & set(trained)
    assert all(picture.shape[2] == 3 for picture in (held_out | trained).values())


@pytest.mark.parametrize(
    ("codec", "qualities"), [("h264", (18, 40)), ("mjpeg", (2, 25)), ("vp9", (18, 58))]
)
def test_compression_is_real_and_worse_at_lower_quality(
    codec: str, qualities: tuple[int, int]
) -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 5, 64)
    good, bad = (compress(clip, codec, quality) for quality in qualities)
    errors = [np.square(side.astype(float) - clip).mean() for side in (good, bad)]
    assert good.shape == clip.shape
    assert 0 < errors[0] < errors[1]


@pytest.mark.parametrize("size", [48, 50, 64])
def test_degradation_keeps_the_shape_and_degrades(size: int) -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 5, size)
    how = Degradation(
        blur=1.0, shrink=3.0, noise=0.03, chroma_noise=0.02, codec="h264", quality=30,
        gain=1.0, offset=0.0, seed=1,
    )  # fmt: skip
    worse = degrade(clip, how)
    assert worse.shape == clip.shape and worse.dtype == np.uint8
    assert np.array_equal(worse, degrade(clip, how))
    error = np.square(worse.astype(float) - clip).mean()
    assert 40 < error < 6000  # 32 dB and 10 dB
    for change in ({"kernel": "bilinear"}, {"kernel": "aliased"}, {"halo": 0.6}):
        assert not np.array_equal(worse, degrade(clip, replace(how, **change)))
    assert np.array_equal(degrade(clip, Degradation(seed=1)), clip)


def test_drawn_degradations_differ_and_keep_the_picture() -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 1, 64)
    draws = [draw(np.random.default_rng(seed)) for seed in range(12)]
    errors = [np.abs(degrade(clip, how).astype(float) - clip).mean() for how in draws]
    assert len(set(draws)) == 12
    assert max(errors) < 40 and len(set(errors)) == 12


def test_light_damage_is_light_and_training_draws_all_kinds() -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 1, 64)

    def error(make: Callable[[np.random.Generator], Degradation]) -> float:
        hows = [make(np.random.default_rng(seed)) for seed in range(30)]
        return float(np.mean([np.abs(degrade(clip, h).astype(float) - clip).mean() for h in hows]))

    light, mixed, any_damage = error(draw_light), error(draw), error(draw_any)
    assert 0.3 < light < mixed < any_damage < 30
    draws = [draw(np.random.default_rng(seed)) for seed in range(200)]
    untouched = sum(how == Degradation(seed=how.seed) for how in draws)
    assert 1 <= untouched <= 30
    assert {how.codec for how in draws} == {"h264", "vp9", "mjpeg", "none"}


def test_a_pool_is_made_once_and_again_for_another_spec(tmp_path: Path) -> None:
    spec = PoolSpec(seed=5, clips=2, frames=1, size=32)
    first = np.array(open_pool(tmp_path, spec).sharp)
    made = (tmp_path / "sharp.npy").stat().st_mtime_ns
    assert np.array_equal(open_pool(tmp_path, spec).sharp, first)
    assert (tmp_path / "sharp.npy").stat().st_mtime_ns == made
    other = open_pool(tmp_path, PoolSpec(seed=6, clips=2, frames=1, size=32))
    assert not np.array_equal(other.sharp, first)


def test_batches_pair_the_same_crops(pool: Pool) -> None:
    sharp, degraded = pool.batch((1, 2), 3, 5, 32)
    again, _ = pool.batch((1, 2), 3, 5, 32)
    other, _ = pool.batch((1, 3), 3, 5, 32)
    assert sharp.shape == degraded.shape == (3, 3, 5, 32, 32)
    assert torch.equal(sharp, again) and not torch.equal(sharp, other)
    twin = Pool(pool.sharp, pool.sharp)
    assert torch.equal(*twin.batch((1, 2), 3, 5, 32))


def test_a_crop_that_moves_is_a_camera_that_pans(pool: Pool) -> None:
    columns = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None], (4, 5, 48, 48, 3))
    ramp = Pool(columns, columns)  # of one value a column
    paces = set()
    for seed in range(20):
        clip = (ramp.batch((seed,), 1, 5, 16, pan=8)[0][0, 0] + 1) * 127.5  # [T, H, W]
        steps = [clip[:, :, 0].diff(dim=0), clip[:, 0].diff(dim=0)]
        paces |= {int(step.abs().max().round()) for step in steps}
    assert max(paces) > 3 and max(paces) <= 8


def test_twice_the_speed_is_every_other_frame(pool: Pool) -> None:
    fast, _ = pool.batch((1, 2), 1, 3, 48, speed=2)
    assert fast.shape == (1, 3, 3, 48, 48)
    slow = torch.stack([torch.from_numpy(clip.copy()) for clip in pool.sharp[:, ::2]])
    slow = slow.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    turned = [fast[0], fast[0].flip(1)]
    turned = [t.transpose(2, 3) if swap else t for t in turned for swap in (False, True)]
    turned = [t.flip(axes) for t in turned for axes in ((), (2,), (3,), (2, 3))]
    assert any(torch.equal(clip, way) for clip in slow for way in turned)


def test_phases_follow_each_other() -> None:
    assert phase_at((FIRST, SECOND), 2) == (FIRST, 2)
    assert phase_at((FIRST, SECOND), 3) == (SECOND, 0)
    assert phase_at((FIRST, SECOND), 6) is None


def tiny_nano(pool: Pool) -> Nano:
    return new_nano(TINY_VAE, TINY_GENERATOR, pool, 1)


def test_the_linear_start_is_already_a_code(pool: Pool) -> None:
    vae = tiny_nano(pool).vae
    x = held_out_clip(5, 64)
    with torch.no_grad():
        mean, logvar = split_moments(vae.encode(x))
        out = vae.decode(mean)
    assert psnr(out[:, :, :1], x[:, :, :1]) > 22 and psnr(out[:, :, 1:], x[:, :, 1:]) > 21
    assert 0.3 < mean.std() < 3 and logvar.mean() < -4


def test_a_linear_code_needs_room(pool: Pool) -> None:
    narrow = VaeConfig(channels=(16, 16, 16, 16), encoder_resnets=1, decoder_resnets=1, groups=2)
    with pytest.raises(ValueError, match="16 latents"):
        new_nano(narrow, TINY_GENERATOR, pool, 1)


def test_the_generator_starts_as_the_identity(pool: Pool) -> None:
    nano = tiny_nano(pool)
    latents = torch.randn(2, 16, 2, 4, 6)
    with torch.no_grad():
        assert (nano.restore_latents(latents, (1,)) - latents).std() < 0.02


def test_a_generator_without_room_for_its_patch_is_refused() -> None:
    config = generator_3b_style(
        width=64, heads=1, head_width=32, layers=2, text_width=16, shared_from=1
    )
    with pytest.raises(ValueError, match="must exceed 65"):
        start_identity(Generator(config))


def test_a_batch_is_restored_as_one_wide_clip(pool: Pool) -> None:
    nano = tiny_nano(pool)
    seen: list[Tensor] = []
    nano.restoration.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    latents = torch.randn(3, 16, 2, 4, 6)
    with torch.no_grad():
        nano.restore_latents(latents, (1,))
    assert seen[0].shape == (2, 4, 18, 16)
    assert torch.equal(seen[0][:, :, 6:12], latents[1].permute(1, 2, 3, 0))


def trainer(pool: Pool) -> Trainer:
    nano = tiny_nano(pool)
    return Trainer(Training(nano, seed=2), nano, {"train": pool, "held-out": pool})


def test_three_steps_reduce_the_loss_of_their_batch(pool: Pool) -> None:
    ours = trainer(pool)
    before = {name: value.clone() for name, value in ours.nano.state_dict().items()}
    losses = []
    for _ in range(4):
        loss = ours.loss(SECOND, 17)
        losses.append(loss.item())
        ours.training.update(loss, 1e-4)
    assert losses[3] < losses[0]
    state = ours.nano.state_dict()
    moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
    ends = {"vae.encoder.conv_in.weight", "vae.decoder.conv_out.weight"}
    assert ends | {"restoration.generator.vid_out.proj.weight"} <= moved
    assert not any(name.endswith("upscale_conv.bias") for name in moved)


@pytest.mark.parametrize("errors", ["absolute", "squared"])
def test_the_loss_is_blind_to_what_the_correction_replaces(
    errors: Literal["absolute", "squared"],
) -> None:
    phase = replace(FIRST, errors=errors)
    sharp = held_out_clip(1, 64)
    degraded, out = sharp + 0.05, sharp.roll(1, 4)
    same, shifted = (clip_loss(x, degraded, sharp, phase) for x in (out, out + 0.2))
    better = clip_loss(0.5 * (sharp + out), degraded, sharp, phase)
    # The picture before the correction weighs next to nothing.
    assert abs(shifted - same) < 0.12 < same - better


def test_a_squared_error_counts_a_grid_five_times() -> None:
    pattern = torch.randn(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    pattern = pattern - pattern.mean((3, 4), keepdim=True)
    clip = pattern.repeat(1, 1, 2, 4, 4)
    zero = torch.zeros_like(clip)
    assert torch.isclose(squared_error(clip, zero), 5 * clip.square().mean())
    flat = torch.full_like(clip, 0.3)
    assert torch.isclose(squared_error(flat, zero), flat.square().mean())


class Stopped(Exception):
    """The interruption of the test below."""


def test_a_resumed_training_is_the_uninterrupted_one(pool: Pool, tmp_path: Path) -> None:
    def run(name: str, stop_at: int) -> Training:
        ours = trainer(pool)

        def loss_of(phase: Phase, step: int) -> Tensor:
            if step == stop_at:
                raise Stopped
            return ours.loss(phase, step)

        train(ours.training, (FIRST, SECOND), loss_of, tmp_path / name, lambda *_: None)
        return ours.training

    whole = run("whole", stop_at=-1)
    with pytest.raises(Stopped):
        run("parts", stop_at=4)
    parts = run("parts", stop_at=-1)
    assert whole.step == parts.step == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, parts.average[name]), name


def test_structure_is_one_for_equal_clips_as_scikit_image_says() -> None:
    from skimage.metrics import structural_similarity

    x = held_out_clip(1, 48)
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    theirs = structural_similarity(
        x[0, :, 0].numpy(), y[0, :, 0].numpy(), channel_axis=0, data_range=2.0,
        use_sample_covariance=False,
    )  # fmt: skip
    assert abs(float(ssim(x, x)) - 1) < 1e-6
    assert abs(float(ssim(x, y)) - theirs) < 1e-3


def test_the_grid_is_what_repeats_every_eight_pixels() -> None:
    pattern = torch.randn(1, 3, 1, 8, 8)
    pattern = pattern - pattern.mean((3, 4), keepdim=True)
    assert torch.allclose(grid(pattern.repeat(1, 1, 5, 4, 6)), pattern.abs().mean(), atol=1e-6)
    assert grid(torch.full((1, 3, 5, 16, 16), 0.3)) < 1e-6
    shifts = [pattern.roll(i, 4) for i in range(8)]
    assert grid(torch.cat(shifts, 4)) < 0.5 * pattern.abs().mean()
    assert picture_loss(pattern, pattern) < 2e-3


def test_recoloured_keeps_the_detail_and_takes_the_colours() -> None:
    clip = held_out_clip(1, 64)
    assert torch.allclose(recoloured(clip, clip), clip, atol=1e-5)
    assert torch.allclose(recoloured(clip, clip + 0.1), clip + 0.1, atol=1e-5)
    two = torch.cat([clip, clip.flip(4)])
    assert torch.allclose(recoloured(two, two + 0.1), two + 0.1, atol=1e-5)


def test_shipped_weights_reconstruct_a_held_out_photograph() -> None:
    vae, _ = load_nano(WEIGHTS)
    x = held_out_clip(1, 256)
    assert psnr(reconstruct(vae, x), x) > 28
    x = held_out_clip(5, 128)
    assert psnr(reconstruct(vae, x), x) > 30
    assert all(
        not module.upscale_conv.bias.any()
        for module in vae.modules()
        if isinstance(module, Upsample) and module.upscale_conv.bias is not None
    )


def test_shipped_weights_restore_without_harm() -> None:
    vae, restoration = load_nano(WEIGHTS)
    sharp = held_out_clip(5, 128)
    clip = np.round(to_pictures(sharp) * 255).astype(np.uint8)
    worse = degrade(clip, draw(np.random.default_rng(1)))
    degraded = torch.from_numpy(worse).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    out = restore(vae, restoration, degraded, 1)
    other = restore(vae, restoration, degraded, 2)
    assert psnr(out, sharp) > psnr(degraded, sharp) - 0.5
    assert psnr(out, other) > 45  # the noise decides next to nothing


def test_shipped_weights_stay_small() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) < 8 * 2**20
    assert {file.stem for file in WEIGHTS.glob("*.safetensors")} == {"vae", "generator", "text"}
    assert isinstance(load_nano(WEIGHTS)[0], VideoVae)
