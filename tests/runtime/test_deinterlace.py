"""Interlaced video: refused unless something is said, or made into whole frames."""

from fractions import Fraction

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
