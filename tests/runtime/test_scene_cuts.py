"""Hard cuts are found; fades, flashes and pans are not taken for them."""

from collections.abc import Iterator

import numpy as np
import pytest
from tests.pictures import YUV420, flat_frame

from vr_trt.bench.cut_clips import cut_clips
from vr_trt.bench.cuts import GREY, Score, score
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.scene_cuts import GRID, REACH, is_cut, mark_cuts, thumbnail

HELD_OUT = range(200, 203)  # the detector's numbers were chosen on seeds below 50


def test_the_score_on_clips_it_was_not_made_on() -> None:
    scores = [score(clip) for clip in cut_clips(HELD_OUT)]
    whole = sum(scores, Score())
    assert whole.found >= 9
    assert whole.f1 >= 0.95, whole


def frames_of(clip_pictures: list[np.ndarray]) -> list[Frame]:
    return [Frame((p, p, p), i, 1) for i, p in enumerate(clip_pictures)]


def test_the_decision_depends_on_near_frames_only() -> None:
    """Started anywhere, it finds the same cuts from REACH frames on."""
    (clip,) = [clip for clip in cut_clips(range(7, 8)) if clip.kind == "hard cuts"]
    frames = frames_of(clip.frames)
    whole = [frame.pts for frame in mark_cuts(frames, GREY) if frame.starts_shot]
    assert whole == list(clip.cuts)
    for start in range(0, len(frames), 13):
        later = [frame.pts for frame in mark_cuts(frames[start:], GREY) if frame.starts_shot]
        assert [n for n in later if n >= start + REACH] == [n for n in whole if n >= start + REACH]


def test_frames_pass_unchanged_and_few_are_held_back() -> None:
    read = []

    def counted() -> Iterator[Frame]:
        for i in range(20):
            read.append(i)
            yield flat_frame(i, pts=i)

    for number, frame in enumerate(mark_cuts(counted(), GREY)):
        assert frame.pts == number
        assert len(read) - number <= REACH
    assert number == 19


def test_black_to_a_picture_is_a_cut_and_a_flash_is_not() -> None:
    picture = np.add.outer(np.arange(36) * 3, np.arange(64) * 2).astype(np.int32)
    other = picture[::-1, ::-1].copy()
    other[:18] = 200
    black = np.zeros_like(picture)
    assert is_cut([black] * 4, [picture] * 4)
    assert is_cut([picture] * 4, [other] * 4)
    assert not is_cut([picture] * 4, [picture // 4 + 190, picture, picture, picture])
    assert not is_cut([picture] * 3 + [picture // 4 + 190], [picture] * 4)
    assert not is_cut([picture] * 4, [picture] * 4)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 36), (63, 35), (1920, 1080)])
@pytest.mark.parametrize("bits", [8, 10])
def test_thumbnails_of_any_size_and_depth(size: tuple[int, int], bits: int) -> None:
    pixel = PixelFormat(
        bits=bits, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
    )
    frame = flat_frame(90 << (bits - 8), width=size[0], height=size[1], pixel=pixel)
    small = thumbnail(frame, pixel)
    assert small.shape == (min(GRID[0], size[1]), min(GRID[1], size[0]))
    assert (small == 90).all()


def test_rgb_is_looked_at_in_all_three_colours() -> None:
    planes = tuple(np.full((36, 64), level, np.uint8) for level in (30, 60, 90))
    rgb = PixelFormat(
        bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
    )
    assert (thumbnail(Frame((planes[0], planes[1], planes[2]), 0, 1), rgb) == 60).all()
    assert (thumbnail(flat_frame(77, pixel=YUV420), YUV420) == 77).all()
