"""The clips that are timed: what makes them differ, and that nothing else does."""

from pathlib import Path

import av
import numpy as np
import pytest

from vr_trt.bench.latency_clips import DEMO, SILENT, TEN_BIT, make_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def luma(path: Path) -> np.ndarray:
    """[F, H, W] code values as they are stored."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray()[: frame.height] for frame in film.decode(video=0)])


def sounds(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(p) for p in film.demux(audio=0) if p.size] if film.streams.audio else []


def test_silent_is_the_demo_clip_without_its_sound(folder: Path) -> None:
    demo, silent = (make_clip(name, folder, 9) for name in (DEMO, SILENT))
    assert sounds(demo) and not sounds(silent)
    assert luma(demo).shape == (9, 180, 320) and np.array_equal(luma(silent), luma(demo))


def test_10_bit_is_the_same_scene_and_sound_in_10_bits(folder: Path) -> None:
    demo, deep = (make_clip(name, folder, 9) for name in (DEMO, TEN_BIT))
    assert sounds(deep) == sounds(demo)
    with av.open(str(deep)) as film:
        assert film.streams.video[0].pix_fmt == "yuv420p10le"
    away = luma(deep).astype(int) - 4 * luma(demo).astype(int)
    assert np.abs(away).mean() < 8  # two levels of 255: what HEVC loses


def test_a_file_is_taken_as_it_is(folder: Path) -> None:
    clip = make_clip(DEMO, folder, 9)
    assert make_clip(str(clip), folder, 9) == clip
