from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vr_trt.bench import demo_clip
from vr_trt.bench.demo_scene import BEAT, Scene, draw, hop

SCENE = Scene(width=192, height=112, frames=24, rate=24, seed=3)


def decoded(path: Path) -> NDArray[np.float64]:
    """Luma of all frames [F, H, W], code values."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
        height = container.streams.video[0].height
    return np.stack(frames)[:, :height].astype(np.float64)


def psnr(given: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((given - wanted) ** 2)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("demo") / "made on demand"
    degraded, clean = folder / "degraded.mp4", folder / "clean.mp4"
    demo_clip.make(degraded, SCENE, clean)
    return degraded, clean


def test_the_clip_is_what_a_camera_would_have_written(clips: tuple[Path, Path]) -> None:
    for path, size in zip(clips, [(96, 56), (192, 112)], strict=True):
        with av.open(str(path)) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            assert (video.width, video.height) == size
            assert video.codec_context.name == "h264"
            assert video.codec_context.pix_fmt == "yuv420p"
            assert video.codec_context.colorspace == 1  # BT.709
            assert video.codec_context.color_range == 1  # limited
            assert video.average_rate == SCENE.rate
            assert sound.codec_context.name == "aac"
            for stream in (video, sound):
                assert stream.duration is not None
                assert stream.time_base is not None
                seconds = float(stream.duration * stream.time_base)
                assert seconds == pytest.approx(SCENE.seconds, abs=1 / SCENE.rate)
        assert len(decoded(path)) == SCENE.frames


def test_the_damage_is_visible_but_the_picture_recognisable(clips: tuple[Path, Path]) -> None:
    degraded, clean = (decoded(path) for path in clips)
    small = clean.reshape(SCENE.frames, 56, 2, 96, 2).mean(axis=(2, 4))
    assert 22 < psnr(degraded, small) < 34


def test_the_clean_clip_is_the_scene(clips: tuple[Path, Path]) -> None:
    frames = np.stack(list(draw(SCENE))).astype(np.float64)
    luma = 16 + 219 * frames @ [0.2126, 0.7152, 0.0722]
    assert psnr(decoded(clips[1]), luma) > 38


def test_everything_moves_and_nothing_is_left_undrawn() -> None:
    frames = np.stack(list(draw(SCENE)))
    assert frames.shape == (SCENE.frames, 112, 192, 3)
    assert frames.dtype == np.float32
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).min() > 0.003
    # The table reaches every corner: an undrawn one would be black in all its pixels.
    corners = frames[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max(axis=2).min() > 0.05


def test_a_note_is_struck_when_the_front_print_lands(clips: tuple[Path, Path]) -> None:
    assert hop(0) == hop(BEAT) == 0
    assert hop(BEAT / 2) == 1
    with av.open(str(clips[0])) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    samples = np.abs(np.concatenate(blocks, axis=1)).sum(axis=0)
    beat = round(BEAT * rate)
    before = samples[beat - rate // 20 : beat - rate // 100].mean()
    after = samples[beat + rate // 100 : beat + rate // 20].mean()
    assert after > 1.5 * before


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        path = tmp_path / f"{name}.mp4"
        demo_clip.make(path, Scene(width=64, height=64, frames=3, seed=seed))
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new folder" / "clip.mp4"
    assert demo_clip.main([str(path), "--frames", "2", "--size", "64x68"]) == 0
    assert decoded(path).shape == (2, 34, 32)
    assert "2 frames of 32x34" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["clip.mp4", "--size", "642x360"], "642x360"),
        (["clip.mp4", "--size", "0x0"], "0x0"),
        (["clip.mp4", "--frames", "0"], "0 frames"),
        (["clip.mp4", "--seed", "-1"], "seed of -1"),
        (["clip.nonsense", "--size", "64x64", "--frames", "1"], "clip.nonsense"),
        (["taken/clip.mp4", "--size", "64x64", "--frames", "1"], "taken"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    assert demo_clip.main(arguments) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo_clip.main(["clip.mp4", "--size", "big"])
    assert "'big' is not a size" in capsys.readouterr().err
