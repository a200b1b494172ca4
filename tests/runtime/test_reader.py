import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from vr_trt.errors import DamagedInputError, UsageError, VrTrtError
from vr_trt.runtime.clock import Clock
from vr_trt.runtime.planes import Planes, turn_planes
from vr_trt.runtime.reader import Reader, SeekMissed, can_seek, probe

MakeClip = Callable[..., Path]
MakePicture = Callable[[int, int, int, str], Planes]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 33), (34, 20)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "gbrp10le", "yuv444p"])
def test_planes_are_exactly_those_that_were_stored(
    tmp_path: Path,
    make_clip: MakeClip,
    make_picture: MakePicture,
    size: tuple[int, int],
    pix_fmt: str,
) -> None:
    path = make_clip(tmp_path / "clip.nut", codec="rawvideo", size=size, pix_fmt=pix_fmt, frames=3)
    with Reader(path) as reader:
        frames = list(reader)
        shapes = reader.info.pixel.plane_shapes(*size)
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        assert tuple(plane.shape for plane in frame.planes) == shapes
        for plane, stored in zip(frame.planes, make_picture(number, *size, pix_fmt), strict=True):
            assert np.array_equal(plane, stored)
            assert plane.flags.c_contiguous


def test_grey_has_neutral_chroma_of_full_size(
    tmp_path: Path, make_clip: MakeClip, make_picture: MakePicture
) -> None:
    path = make_clip(tmp_path / "clip.mkv", codec="ffv1", pix_fmt="gray10le", frames=1)
    with Reader(path) as reader:
        (frame,) = reader
    assert reader.info.pixel.layout == "gray"
    assert np.array_equal(frame.planes[0], make_picture(0, 32, 24, "gray10le")[0])
    assert (frame.planes[2] == 512).all() and frame.planes[2].shape == (24, 32)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_come_upright(
    tmp_path: Path, make_clip: MakeClip, rotation: int, mirrored: bool
) -> None:
    size = (34, 20)
    stored = make_clip(tmp_path / "stored.mp4", size=size, frames=2)
    turned = make_clip(
        tmp_path / "turned.mp4", size=size, frames=2, rotation=rotation, mirrored=mirrored
    )
    with Reader(stored) as plain, Reader(turned) as reader:
        for before, after in zip(plain, reader, strict=True):
            assert (after.width, after.height) == (reader.info.width, reader.info.height)
            for a, b in zip(
                turn_planes(before.planes, rotation, mirrored), after.planes, strict=True
            ):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("count", range(1, 10))
def test_short_clips_are_complete(tmp_path: Path, make_clip: MakeClip, count: int) -> None:
    with Reader(make_clip(tmp_path / "clip.mp4", frames=count)) as reader:
        assert len(list(reader)) == count
    assert (reader.skipped, reader.warnings) == (0, [])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rates_keep_every_time_and_the_last_length(
    tmp_path: Path, make_clip: MakeClip, suffix: str
) -> None:
    times = [0, 40, 100, 133, 200, 260, 300, 400, 410, 500]
    path = make_clip(tmp_path / f"clip{suffix}", pts=times, time_base=Fraction(1, 1000), rate=4)
    with Reader(path) as reader:
        units = 1 / reader.info.time_base / 1000
        shown = [(frame.pts / units, frame.duration / units) for frame in reader]
    lengths = [later - now for now, later in zip(times, [*times[1:], 750], strict=True)]
    assert [at for at, _ in shown] == times
    assert [length for _, length in shown] == lengths


def test_containers_without_presentation_times_are_counted_from_the_start(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    """AVI stores decoding times only; B-frames made FFmpeg's guesses run backwards."""
    with Reader(make_clip(tmp_path / "clip.avi", frames=30)) as reader:
        assert [frame.pts for frame in reader] == list(range(30))
    assert reader.warnings == []


def test_a_raw_stream_gets_times_from_its_rate(tmp_path: Path, make_clip: MakeClip) -> None:
    with Reader(make_clip(tmp_path / "clip.h264", frames=6)) as reader:
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert times == [Fraction(number, 25) for number in range(6)]
    assert "timestamps" in reader.warnings[0]


def test_a_cut_off_mkv_delivers_what_is_there_and_says_so(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=100, size=(64, 48))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with Reader(cut) as reader:
        count = len(list(reader))
    assert 20 < count < 80
    assert any("earlier than announced" in line for line in reader.warnings)


def clip_of_stills(path: Path, make_clip: MakeClip, broken: set[int]) -> Path:
    """Thirty PNG pictures as a video; those in `broken` lose their signature."""
    make_clip(path, frames=30, codec="png", pix_fmt="rgb24")
    data = path.read_bytes()
    signature = b"\x89PNG"
    pieces = data.split(signature)
    assert len(pieces) == 31
    joints = [b"----" if number in broken else signature for number in range(30)]
    mixed = [part for pair in zip(joints, pieces[1:], strict=True) for part in pair]
    path.write_bytes(pieces[0] + b"".join(mixed))
    return path


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({0, 7, 8, 20}, "4 damaged packets were skipped"),
        ({7}, "1 damaged packet was skipped"),
    ],
)
def test_damaged_packets_are_skipped_and_counted(
    tmp_path: Path, make_clip: MakeClip, broken: set[int], said: str
) -> None:
    path = clip_of_stills(tmp_path / "clip.mov", make_clip, broken)
    with Reader(path) as reader:
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert times == [Fraction(number, 25) for number in range(30) if number not in broken]
    assert reader.skipped == len(broken)
    assert said in reader.warnings


def test_too_much_damage_in_a_row_is_given_up(
    tmp_path: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip_of_stills(tmp_path / "clip.mov", make_clip, set(range(5, 15)))
    monkeypatch.setattr("vr_trt.runtime.decode.PACKETS_IN_A_ROW", 11)
    with Reader(path) as reader:
        assert len(list(reader)) == 20
    monkeypatch.setattr("vr_trt.runtime.decode.PACKETS_IN_A_ROW", 10)
    with Reader(path) as reader, pytest.raises(DamagedInputError, match="10 packets in a row"):
        list(reader)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("keyframes", ["12", "300"])
def test_reading_can_begin_at_any_frame(
    tmp_path: Path, make_clip: MakeClip, suffix: str, keyframes: str
) -> None:
    """B-frames, key frames here and there, uneven times: the same frames as a whole read's."""
    times = [number * 40 + 7 * (number % 3) for number in range(90)]
    path = make_clip(
        tmp_path / f"clip{suffix}",
        frames=90,
        pts=times,
        time_base=Fraction(1, 1000),
        options={"g": keyframes, "bf": "3", "crf": "25"},
    )
    info = probe(path)
    assert can_seek(info)
    with Reader(path, info) as reader:
        whole = list(reader)
    for number in (0, 1, 11, 12, 13, 40, 71, 72, 89):
        with Reader(path, info, start=whole[number].pts) as reader:
            later = list(reader)
        assert [frame.pts for frame in later] == [frame.pts for frame in whole[number:]]
        for one, other in zip(later, whole[number:], strict=True):
            assert all(map(np.array_equal, one.planes, other.planes))
        assert reader.warnings == []
    with Reader(path, info, start=whole[40].pts + 1) as reader, pytest.raises(SeekMissed):
        list(reader)


def test_a_change_of_size_is_refused(tmp_path: Path, make_clip: MakeClip) -> None:
    parts = [make_clip(tmp_path / f"{width}.ts", size=(width, 48), frames=20) for width in (64, 96)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Reader(path) as reader, pytest.raises(UsageError, match="64x48 to 96x48"):
        list(reader)


def clock(tmp_path: Path, make_clip: MakeClip) -> Clock:
    return Clock(probe(make_clip(tmp_path / "clip.mkv", frames=1)))


def test_one_wrong_time_does_not_move_the_others(tmp_path: Path, make_clip: MakeClip) -> None:
    at = clock(tmp_path, make_clip)
    assert at.in_order(0, 40, 80) == (40, 80)
    assert at.in_order(0, 9000, 80) == (40, 80)  # the middle one was wrong
    assert at.in_order(0, 40, 40) == (39, 40)
    assert at.in_order(None, 40, 40) == (40, 41)
    assert at.in_order(100, 101, 7) == (101, 102)
    assert at.repaired == 4


def test_a_jump_of_hours_is_taken_out_and_a_pause_is_not(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    at = clock(tmp_path, make_clip)  # milliseconds
    frame = av.VideoFrame(2, 2)
    shown = []
    for pts in (0, 40, 60_000, 60_040, 100_000_000, 100_000_040, 60_080 + 80):
        frame.pts = pts
        shown.append(at.pts(frame))
    assert shown == [0, 40, 60_000, 60_040, 60_080, 60_120, 60_160]
    assert at.repaired == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_damage_ends_in_frames_or_in_one_line(
    tmp_path: Path, make_clip: MakeClip, suffix: str
) -> None:
    good = make_clip(tmp_path / f"good{suffix}", frames=20, size=(64, 48), audio=0.5).read_bytes()
    outcomes = set()
    for seed in range(40):
        generator = random.Random(seed)
        data = bytearray(good)
        for _ in range(generator.choice([1, 10, 100])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(data)
        try:
            with Reader(path) as reader:
                times = [frame.pts for frame in reader]
            assert times and all(a < b for a, b in pairwise(times))
            outcomes.add("frames")
        except VrTrtError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            outcomes.add(type(error).__name__)
    assert "frames" in outcomes and len(outcomes) > 1
