"""nano's scores: flicker along the motion, and the clips whose damage training never draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vr_trt.export.nano.data import make_clip, photographs
from vr_trt.export.nano.other_damage import CODECS, damage, make_other_clip
from vr_trt.export.nano.scores import Pictures, flicker, likeness, motion, sharpened


def pan(frames: int = 3, size: int = 64) -> Pictures:
    """The coffee cup under a camera that moves two pixels a frame."""
    picture = photographs("held-out")["coffee"]
    clip = np.stack([picture[100:, 150 + 2 * t :][:size, :size] for t in range(frames)])
    return (clip / 255).astype(np.float32)


def test_what_moves_with_the_picture_does_not_flicker() -> None:
    clip = pan()
    moved = motion(clip)
    assert min(seen.mean() for seen in moved.seen) > 0.7
    assert flicker(clip, moved) < 3
    noise = np.random.default_rng(1).normal(0, 10 / 255, clip.shape).astype(np.float32)
    assert 10 < flicker(clip + noise, moved) < 16  # of two frames' noise, one interpolated
    assert flicker(sharpened(clip + noise), moved) > flicker(clip + noise, moved)
    frozen = np.broadcast_to(clip[:1], clip.shape)
    assert flicker(frozen, moved) > 3 * flicker(clip, moved)


def test_likeness_falls_with_noise() -> None:
    clip = pan(frames=2)
    psnr, ssim = likeness((clip + 1e-5).astype(np.float32), clip)
    assert psnr == 60 and ssim > 0.999  # no more than 60 dB, so that no frame outweighs the others
    psnr, ssim = likeness((clip + 0.1).astype(np.float32), clip)
    assert abs(psnr - 20) < 1e-3 and ssim < 1


def test_other_damage_follows_its_seed_and_goes_round_the_codecs() -> None:
    def degraded(seed: int, kind: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        clip = make_other_clip(rng, 3, 128)
        return clip, damage(rng, clip, kind)

    results = [degraded(1, kind)[1] for kind in range(len(CODECS))]
    clip, again = degraded(1, 0)
    assert clip.shape == again.shape == (3, 128, 128, 3) and again.dtype == np.uint8
    assert np.array_equal(again, results[0])
    with pytest.raises(ValueError, match="too small"):
        damage(np.random.default_rng(1), clip[:, :64, :64], 0)
    errors = [np.square(result.astype(float) - clip).mean() for result in results]
    assert all(5 < error < 3000 for error in errors) and len(set(errors)) == len(CODECS)
    assert not np.array_equal(clip, make_clip(np.random.default_rng(1), "held-out", 3, 128))


SCORES = json.loads((Path(__file__).parents[2] / "export" / "nano" / "scores.json").read_text())


@pytest.mark.parametrize("name", ["held-out", "other damage", "other damage, 360p"])
def test_the_published_scores_are_better_than_bicubic_and_flicker_less(name: str) -> None:
    scores = SCORES[name]["scores"]
    restored, bicubic, sharp = (
        scores[way] for way in ("restored", "bicubic input", "sharpened input")
    )
    assert restored["psnr"] > bicubic["psnr"] and restored["ssim"] > bicubic["ssim"]
    assert restored["flicker"] < sharp["flicker"]


def test_a_good_clip_keeps_its_structure() -> None:
    scores = SCORES["light damage"]["scores"]
    restored, bicubic, sharp = (
        scores[way] for way in ("restored", "bicubic input", "sharpened input")
    )
    assert restored["ssim"] > bicubic["ssim"] - 0.005 and restored["flicker"] < sharp["flicker"]
    assert bicubic["psnr"] - 3 < restored["psnr"]  # worse on average, as the README says
