"""Comparing files: what is measured against what, and what is reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.media import make_video

from vr_trt.bench.compare_pictures import PagePictures
from vr_trt.bench.comparison import Measures, compare
from vr_trt.cli import exit_code
from vr_trt.errors import UsageError


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_video(tmp_path / "film.mp4", frames=7, size=(64, 48))


def test_a_film_is_equal_to_itself(film: Path) -> None:
    found = compare(film, film, film)
    assert [of.name for of in found.measures] == ["A", "B"]
    assert (found.frames, found.width, found.height, found.notes) == (7, 64, 48, ())
    for of in found.measures:
        assert of.likeness["psnr"] == [100.0] * 7
        assert of.pooled()["ssim"] == pytest.approx(1)
        assert len(of.flicker) == len(of.change) == 6


def test_sizes_and_lengths_that_differ_are_noted(film: Path, tmp_path: Path) -> None:
    large = make_video(tmp_path / "large.mp4", frames=5, size=(128, 96))
    found = compare(film, large)
    assert (found.frames, found.width, found.height) == (5, 128, 96)
    assert [of.name for of in found.measures] == ["B"]
    assert found.notes == (
        "film.mp4 is 64x48: brought to 128x96 by bicubic",
        "film.mp4 has 2 frames more, which are left out",
    )


def test_another_measure_has_a_name_of_its_own(film: Path) -> None:
    found = compare(film, film, film, more={"mean": lambda ours, truth: float(ours.mean())})
    assert all(len(of.likeness["mean"]) == 7 for of in found.measures)
    with pytest.raises(UsageError, match="psnr is measured anyway"):
        compare(film, film, film, more={"psnr": lambda ours, truth: 0.0})


def test_a_jump_stands_out() -> None:
    measures = Measures(name="B", change=[2.0, 2.0, 2.0, 6.0, 2.0, 2.0, 0.0])
    assert measures.jumps()[3] == 3
    assert measures.jumps()[1] == 1
    assert Measures(name="B", change=[0.0, 0.0]).jumps() == [1, 1]


def test_a_page_keeps_evenly_spaced_frames() -> None:
    page = PagePictures(4)
    for index in range(21):
        page.add(index, [np.full((2, 2, 3), index / 20, np.float32)])
    assert page.indices == [0, 8, 16]
    assert len(page.pictures) == 3


def test_the_command_writes_all_it_is_asked_for(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_video(tmp_path / "other.mp4", frames=7, size=(32, 24))
    page, strip = tmp_path / "page.html", tmp_path / "strip.png"
    arguments = ["compare", str(other), str(film), str(film), "--json", "--html", str(page)]
    arguments += ["--png", str(strip), "--frame", "3", "--crop", "10,4,20,30"]
    assert exit_code(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pooled"]["B"]["psnr"] == 100
    assert found["pooled"]["A"]["psnr"] < 60
    assert len(found["per_frame"]["A"]["ssim"]) == 7
    assert Image.open(strip).size == (3 * 20 + 2 * 6, 30)
    assert page.stat().st_size > 10_000
    assert exit_code(["compare", str(other), str(film)]) == 0
    assert "B against A" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["film.mp4", "missing.mp4"], 2, "missing.mp4"),
        (["film.mp4", "film.mp4", "--crop", "1,2,3"], 2, "LEFT,TOP,WIDTH,HEIGHT"),
        (["film.mp4", "film.mp4", "--crop", "60,0,20,20", "--png", "s.png"], 2, "outside"),
        (["film.mp4", "film.mp4", "--html", "nowhere/page.html"], 2, "nowhere"),
        (["film.mp4", "film.mp4", "--metric", "lpips"], 3, "pip install pyiqa"),
    ],
)
def test_bad_input_is_one_line(
    film: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(film.parent)
    monkeypatch.setitem(__import__("sys").modules, "pyiqa", None)
    assert exit_code(["compare", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in film.parent.iterdir()] == ["film.mp4"]
