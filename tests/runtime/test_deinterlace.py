"""Interlaced video: refused unless something is said, or made into whole frames."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vr_trt.errors import UsageError
from vr_trt.runtime.deinterlace import deinterlaced
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.reader import Reader, probe

FRAMES, WIDTH, HEIGHT = 12, 64, 48


def level(field: int) -> float:
    """What field number `field` shows: a ramp that gets brighter."""
    return 40 + 6 * field


@pytest.fixture(scope="module", params=[".mkv", ".avi"])
def film(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> VideoInfo:
    """25 frames a second of two fields each, lower first; AVI has times of decoding only."""
    path = tmp_path_factory.mktemp("fields") / f"in{request.param}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "1", "flags": "+ildct+ilme"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            rows = [level(2 * i + 1 - row % 2) for row in range(HEIGHT)]
            luma = np.repeat(np.array(rows)[:, None], WIDTH, 1).round().astype(np.uint8)
            flat = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, flat]), format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return probe(path)


def read(info: VideoInfo) -> tuple[list[float], list[float]]:
    """Seconds and mean levels of the frames."""
    with Reader(info.path, info) as reader:
        frames = list(reader)
    return (
        [float(frame.pts * info.time_base) for frame in frames],
        [float(frame.planes[0].mean()) for frame in frames],
    )


def test_it_is_refused_without_a_word(film: VideoInfo) -> None:
    assert film.interlaced
    with pytest.raises(UsageError, match="is interlaced: --deinterlace field"):
        deinterlaced(film, None)
    with pytest.raises(UsageError, match="unknown way"):
        deinterlaced(film, "weave")


def test_each_field_becomes_a_frame(film: VideoInfo) -> None:
    info = deinterlaced(film, "field")
    times, levels = read(info)
    assert info.frame_rate == 50
    assert times == pytest.approx([i / 50 for i in range(2 * FRAMES)], abs=0.0006)
    assert levels == pytest.approx([level(i) for i in range(2 * FRAMES)], abs=2)


def test_each_frame_stays_one(film: VideoInfo) -> None:
    times, levels = read(deinterlaced(film, "frame"))
    assert times == pytest.approx([i / 25 for i in range(FRAMES)], abs=0.0006)
    assert levels == pytest.approx([level(2 * i) for i in range(FRAMES)], abs=2)


def test_off_leaves_it_as_it_is(film: VideoInfo) -> None:
    assert deinterlaced(film, "off") == film
    _, levels = read(film)
    assert levels == pytest.approx([level(2 * i) + 3 for i in range(FRAMES)], abs=2)


def woven(path: Path, pairs: Sequence[tuple[int, int]], marked: bool, rate: int = 25) -> VideoInfo:
    """A film of whose frames the upper and lower fields show the pictures of those numbers."""
    flags = {"flags": "+ildct+ilme", "x264-params": "tff=1"} if marked else {}
    across, down = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", **flags})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i, pair in enumerate(pairs):
            upper, lower = (60 + 50 * np.sin((across + 7 * n) / 5) + 2 * down for n in pair)
            luma = np.where(down % 2, lower, upper).round().astype(np.uint8)
            flat = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, flat]), format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return probe(path)


@pytest.mark.parametrize("marked", [True, False])
def test_film_comes_out_of_telecine(tmp_path: Path, marked: bool) -> None:
    """Four pictures in five frames: AA BB BC CD DD."""
    pulled = [
        (4 * i + a, 4 * i + b)
        for i in range(6)
        for a, b in ((0, 0), (1, 1), (1, 2), (2, 3), (3, 3))
    ]
    info = deinterlaced(woven(tmp_path / "in.mkv", pulled, marked, rate=30), "telecine")
    with Reader(info.path, info) as reader:
        frames = list(reader)
    assert len(frames) == 24 and info.frame_rate == 24
    steps = np.diff([float(frame.pts * info.time_base) for frame in frames])
    assert steps == pytest.approx([1 / 24] * 23, abs=0.0011)
    for number, frame in enumerate(frames):
        wave = 60 + 50 * np.sin((np.arange(WIDTH) + 7 * number) / 5)
        assert np.abs(frame.planes[0][10] - wave - 20).mean() < 4, number


def test_what_is_not_marked_is_taken_apart_if_told_so(tmp_path: Path) -> None:
    fields = [(2 * i, 2 * i + 1) for i in range(10)]
    info = woven(tmp_path / "in.mkv", fields, marked=False)
    assert not info.interlaced
    for mode, frames in (("field", 10), ("all-fields", 20), ("frame", 10), ("all-frames", 10)):
        chosen = deinterlaced(info, mode)
        with Reader(chosen.path, chosen) as reader:
            found = list(reader)
        assert len(found) == frames
        combs = np.abs(np.diff(found[4].planes[0].astype(int), axis=0)).mean()
        assert (combs < 4) == mode.startswith("all-"), (mode, combs)


def test_fields_that_come_later_are_taken_apart(tmp_path: Path) -> None:
    """The first frame does not say what the rest are; what was asked for holds."""
    parts = tmp_path / "one.ts", tmp_path / "two.ts"
    woven(parts[0], [(i, i) for i in range(10)], marked=False)
    woven(parts[1], [(2 * i, 2 * i + 1) for i in range(10)], marked=True)
    film = tmp_path / "in.ts"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    info = probe(film)
    assert not info.interlaced
    with Reader(film, info) as reader:
        assert len(list(reader)) == 20
    assert any(
        "10 interlaced frames" in line and "--deinterlace" in line for line in reader.warnings
    )
    chosen = deinterlaced(info, "field")
    with Reader(film, chosen) as reader:
        assert len(list(reader)) == 10 + 20
    assert not any("interlaced" in line for line in reader.warnings)
