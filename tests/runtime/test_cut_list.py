"""Lists of cuts, and ranges of frames."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.media import make_video, picture
from tests.pictures import YUV420, flat_frame

from vr_trt.cli import exit_code
from vr_trt.errors import UsageError
from vr_trt.runtime.cut_list import Cut, Cuts, cuts_from, read_cut_list, write_cut_list
from vr_trt.runtime.film_source import FilmSource, Place, Range, parse_range
from vr_trt.runtime.reader import probe


def two_shots(path: Path) -> Path:
    """Twelve frames of one picture, then thirteen of another."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        other = np.random.default_rng(1).integers(0, 255, (6, 8, 3)).astype(np.uint8)
        for i in range(25):
            image = picture(i, 64, 48) if i < 12 else other.repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_command_writes_a_list_that_a_run_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film, cuts = two_shots(tmp_path / "in.mkv"), tmp_path / "cuts.txt"
    assert exit_code(["cuts", str(film)]) == 0
    assert capsys.readouterr().out == "12\t0.480\n"
    assert exit_code(["cuts", str(film), "-o", str(cuts)]) == 0
    assert cuts_from(str(cuts)) == Cuts("list", frozenset({12}))


def test_lists_come_back(tmp_path: Path) -> None:
    path = tmp_path / "cuts.txt"
    write_cut_list(path, [Cut(0, 0.0), Cut(250, 10.0104)])
    assert path.read_text().splitlines()[1:] == ["0\t0.000", "250\t10.010"]
    assert read_cut_list(path) == {0, 250}
    path.write_text("# mine\n\n7  # here\n  9 0.36\n")
    assert read_cut_list(path) == {7, 9}


MANY_DIGITS = "9" * 5000  # more than Python makes a number of


@pytest.mark.parametrize("content", ["12.5\n", "-3\n", "shot 4\n", MANY_DIGITS])
def test_wrong_lists_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cuts.txt"
    path.write_text("5\n" + content)
    with pytest.raises(UsageError, match=r"cuts.txt, line 2"):
        read_cut_list(path)
    with pytest.raises(UsageError, match=r"none.txt cannot be read"):
        cuts_from(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("10-20", Place(number=10), Place(number=20)),
        ("1:30-", Place(seconds=Fraction(90)), None),
        ("-1:02:03.5", None, Place(seconds=Fraction("3723.5"))),
        ("5s-7.25s", Place(seconds=Fraction(5)), Place(seconds=Fraction("7.25"))),
    ],
)
def test_ranges(text: str, start: Place | None, stop: Place | None) -> None:
    assert parse_range(text) == Range(start, stop)


@pytest.mark.parametrize(
    "text", ["", "-", "10", "a-b", "1:2:3:4-", "5m-", f"{MANY_DIGITS}-", f"{MANY_DIGITS}:00-"]
)
def test_wrong_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a range"):
        parse_range(text)


def test_the_frames_of_a_run(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "in.mkv", frames=2, size=(64, 48)))
    step = round(Fraction(1, 25) / info.time_base)
    frames = [flat_frame(9, pts=5 + i * step, pixel=YUV420) for i in range(50)]

    def taken(range_: str, skip: int = 0) -> tuple[list[int], list[int]]:
        cuts = Cuts("list", frozenset({12, 14}))
        found = list(FilmSource(frames, info, parse_range(range_), cuts, skip))
        numbers = [(frame.pts - 5) // step for frame in found]
        return numbers, [n for n, f in zip(numbers, found, strict=True) if f.starts_shot]

    assert taken("10-20") == (list(range(10, 20)), [12, 14])
    assert taken("0.4s-0:00.52") == ([10, 11, 12], [12])
    assert taken("10-20", skip=3) == (list(range(13, 20)), [14])
    assert taken("48-") == ([48, 49], [])
    with pytest.raises(UsageError, match="no frame lies in the range"):
        taken("60-")
