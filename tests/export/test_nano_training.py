"""nano's data, degradation and training, and the weights that are shipped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vr_trt.export.config import GeneratorConfig, VaeConfig, generator_3b_style
from vr_trt.export.nano.data import make_clip, photographs
from vr_trt.export.nano.degrade import Degradation, compress, degrade, draw
from vr_trt.export.nano.evaluate import load_nano, restore, to_pictures
from vr_trt.export.nano.latents import LatentPool
from vr_trt.export.nano.losses import psnr
from vr_trt.export.nano.pool import Pool, PoolSpec, open_pool
from vr_trt.export.nano.train_generator import new_restoration
from vr_trt.export.nano.train_together import Nano, TogetherTrainer, recoloured
from vr_trt.export.nano.train_vae import VaeTrainer, as_pictures, new_vae, reconstruct, start_time
from vr_trt.export.nano.training import Phase, Training, phase_at, train
from vr_trt.export.vae import Upsample, VideoVae, split_moments

TINY_VAE = VaeConfig(channels=(8, 16, 24, 24), encoder_resnets=1, decoder_resnets=1, groups=2)
PICTURES = Phase(name="pictures", steps=3, clips=2, frames=1, size=32, rate=1e-3, last_rate=1e-3)
CLIPS = Phase(name="clips", steps=3, clips=1, frames=5, size=32, rate=1e-3, last_rate=1e-3)
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


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_compression_is_real_and_worse_at_lower_quality(codec: str) -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 5, 64)
    good, bad = (
        compress(clip, codec, quality) for quality in ((18, 40) if codec == "h264" else (2, 25))
    )
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


def test_drawn_degradations_differ_and_keep_the_picture() -> None:
    clip = make_clip(np.random.default_rng(8), "held-out", 1, 64)
    draws = [draw(np.random.default_rng(seed)) for seed in range(12)]
    errors = [np.abs(degrade(clip, how).astype(float) - clip).mean() for how in draws]
    assert len(set(draws)) == 12
    assert max(errors) < 40 and len(set(errors)) == 12


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


def test_phases_follow_each_other() -> None:
    assert phase_at((PICTURES, CLIPS), 2) == (PICTURES, 2)
    assert phase_at((PICTURES, CLIPS), 3) == (CLIPS, 0)
    assert phase_at((PICTURES, CLIPS), 6) is None


def test_the_linear_start_is_already_a_code(pool: Pool) -> None:
    vae = new_vae(TINY_VAE, pool, 1)
    x = held_out_clip(1, 64)
    with torch.no_grad():
        mean, logvar = split_moments(vae.encode(x))
        out = vae.decode(mean)
    assert psnr(out, x) > 18
    assert 0.3 < mean.std() < 3 and logvar.mean() < -4


def test_single_pictures_may_use_the_last_tap_alone(pool: Pool) -> None:
    vae = new_vae(TINY_VAE, pool, 1)
    x = held_out_clip(1, 32)
    with torch.no_grad():
        whole = vae.decode(split_moments(vae.encode(x))[0])
        with as_pictures(vae):
            flat = vae.decode(split_moments(vae.encode(x))[0])
        start_time(vae)
        later = vae.decode(split_moments(vae.encode(x))[0])
    assert torch.allclose(whole, flat, atol=1e-4)
    assert torch.allclose(whole, later, atol=1e-4)


def trainer(pool: Pool) -> VaeTrainer:
    training = Training(new_vae(TINY_VAE, pool, 1), seed=2)
    return VaeTrainer(training, pool, pool, (PICTURES, CLIPS))


@pytest.mark.parametrize("phase", [PICTURES, CLIPS])
def test_three_steps_reduce_the_loss_of_their_batch(pool: Pool, phase: Phase) -> None:
    ours = trainer(pool)
    losses = []
    for _ in range(4):
        loss = ours.loss(phase, 17)
        losses.append(loss.item())
        ours.training.update(loss, 3e-4)
    assert losses[3] < losses[0]
    for module in ours.training.model.modules():
        if isinstance(module, Upsample):
            assert module.upscale_conv.bias is not None
            assert not module.upscale_conv.bias.any()


class Stopped(Exception):
    """The interruption of the test below."""


def test_a_resumed_training_is_the_uninterrupted_one(pool: Pool, tmp_path: Path) -> None:
    def run(name: str, stop_at: int) -> Training:
        ours = trainer(pool)

        def loss_of(phase: Phase, step: int) -> Tensor:
            if step == stop_at:
                raise Stopped
            return ours.loss(phase, step)

        train(ours.training, (PICTURES, CLIPS), loss_of, tmp_path / name, lambda *_: None)
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


def tiny_generator() -> GeneratorConfig:
    return generator_3b_style(
        width=136, heads=1, head_width=32, layers=2, text_width=16, shared_from=1
    )


def test_the_generator_starts_as_the_identity() -> None:
    restoration = new_restoration(tiny_generator(), 1)
    noise, latent = torch.randn(2, 2, 4, 6, 16).unbind(0)
    with torch.no_grad():
        assert (restoration(noise, latent) - latent).std() < 0.01


def test_three_steps_reduce_the_generators_loss() -> None:
    torch.manual_seed(0)
    training = Training(new_restoration(tiny_generator(), 1), seed=1)
    noise, latent = torch.randn(2, 2, 4, 6, 16).unbind(0)
    losses = []
    for _ in range(4):
        loss = (training.model(noise, latent) - latent.tanh()).square().mean()
        losses.append(loss.item())
        training.update(loss, 1e-3)
    assert losses[3] < losses[0]


def test_finishing_tunes_all_but_the_encoder(pool: Pool) -> None:
    nano = Nano(new_vae(TINY_VAE, pool, 1), new_restoration(tiny_generator(), 1))
    nano.vae.encoder.requires_grad_(False)
    training = Training(nano, seed=1)
    ours = TogetherTrainer(training, nano, {"train": pool})
    before = {name: value.clone() for name, value in nano.state_dict().items()}
    step = next(n for n in range(20) if np.random.default_rng((1, n, 1)).random(2)[1] > 0.5)
    losses = []
    for _ in range(4):
        loss = ours.loss(CLIPS, step)
        losses.append(loss.item())
        training.update(loss, 3e-4)
    assert losses[3] < losses[0]
    moved = {n for n, value in nano.state_dict().items() if not torch.equal(value, before[n])}
    assert not any(name.startswith("vae.encoder") for name in moved)
    assert {"vae.decoder.conv_out.weight", "restoration.generator.vid_out.proj.weight"} <= moved


def test_recoloured_keeps_the_detail_and_takes_the_colours() -> None:
    clip = held_out_clip(1, 64)
    assert torch.allclose(recoloured(clip, clip), clip, atol=1e-5)
    assert torch.allclose(recoloured(clip, clip + 0.1), clip + 0.1, atol=1e-5)


def test_a_mosaic_puts_whole_clips_side_by_side() -> None:
    clips = torch.arange(5.0)[:, None, None, None, None].expand(5, 16, 3, 4, 4).half()
    sharp, degraded = LatentPool(clips, clips + 10).mosaic(np.random.default_rng(1), 5, 2, 3)
    assert sharp.shape == degraded.shape == (5, 8, 12, 16)
    assert torch.equal(degraded, sharp + 10)
    tiles = sharp.unflatten(1, (2, 4)).unflatten(3, (3, 4))  # [T, rows, 4, columns, 4, 16]
    assert torch.equal(tiles.amin((0, 2, 4, 5)), tiles.amax((0, 2, 4, 5)))
    assert len(tiles.unique()) > 1


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
