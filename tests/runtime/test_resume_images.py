"""Numbered images of a run that was stopped, and what comes of going on with it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video

from vr_trt.cli import exit_code
from vr_trt.runtime.journal import folder_of

# The command line with segments of a few frames, and a writer that is slow after some.
RUN = """
import sys, time
from vr_trt.runtime import film, images_sink
film.SEGMENT_FRAMES, film.SHOT_SEGMENT_FRAMES = 12, 6
made = images_sink.encode_image
def slow(*given):
    time.sleep(float(sys.argv[1]))
    return made(*given)
images_sink.encode_image = slow
from vr_trt.cli import main
main(sys.argv[2:])
"""
FRAMES = 60

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("film") / "in.mkv", frames=FRAMES, size=(64, 48))


def command(film: Path, model: str, output: Path, seconds: float, *options: str) -> list[str]:
    fixed = ["--profile", "360p", "--model", model, "--threads", "1", "-o", str(output)]
    return [sys.executable, "-c", RUN, str(seconds), "run", str(film), *fixed, *options]


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("f*.jpg"))}


@pytest.fixture(scope="module")
def whole(
    film: Path, model: str, small_pictures: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(film, model, folder / "f%03d.jpg", 0), check=True)
    assert len(images(folder)) == FRAMES == len(list(folder.iterdir()))
    return images(folder)


def killed(film: Path, model: str, output: Path, segments: int) -> None:
    """A run that is killed when so many segments are noted and some images follow."""
    process = subprocess.Popen(command(film, model, output, 0.02), stderr=subprocess.DEVNULL)
    journal = folder_of(output) / "journal.jsonl"
    while process.poll() is None:
        lines = journal.read_text().count("\n") if journal.is_file() else 0
        if lines > segments and len(images(output.parent)) > 12 * segments + 3:
            break
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert len(images(output.parent)) < FRAMES


@pytest.mark.parametrize("segments", [0, 2])
def test_images_of_a_killed_run_are_those_of_an_undisturbed_one(
    film: Path, model: str, whole: dict[str, bytes], tmp_path: Path, segments: int
) -> None:
    output = tmp_path / "f%03d.jpg"
    killed(film, model, output, segments)
    kept = {name: (tmp_path / name).stat().st_mtime_ns for name in images(tmp_path)}
    assert exit_code(command(film, model, output, 0)[4:]) == 2  # it says that a run is kept
    assert images(tmp_path).keys() == kept.keys()
    done = subprocess.run(command(film, model, output, 0, "--resume"), check=False)
    assert done.returncode == 0
    assert images(tmp_path) == whole
    assert not folder_of(output).exists() and len(list(tmp_path.iterdir())) == FRAMES
    untouched = [n for n in sorted(kept)[: 12 * segments] if kept[n] == mtime(tmp_path / n)]
    assert len(untouched) == 12 * segments
    again = subprocess.run(command(film, model, output, 0, "--resume"), check=False)
    assert again.returncode == 0 and images(tmp_path) == whole  # nothing to do


def mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_an_image_that_is_gone_is_named(
    film: Path, model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "f%03d.jpg"
    killed(film, model, output, 2)
    (tmp_path / "f005.jpg").unlink()
    assert exit_code(command(film, model, output, 0, "--resume")[4:]) == 2
    assert "f005.jpg is missing or damaged" in capfd.readouterr().err
