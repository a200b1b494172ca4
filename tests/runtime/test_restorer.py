"""Files and frames through the public class, with the fake model."""

import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.fake_model import make_fake_model
from tests.media import make_image, make_video, read_frames, seconds

from vr_trt import Restorer
from vr_trt.errors import InterruptedRun, UsageError
from vr_trt.runtime.pipeline import Progress


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("count", [1, 2, 5, 9, 22, 47])
def test_a_video_keeps_its_frames_and_timestamps(tmp_path: Path, model: str, count: int) -> None:
    source = make_video(tmp_path / "in.mp4", frames=count, size=(64, 48))
    seen: list[Progress] = []
    with Restorer(model=model, profile="360p") as restorer:
        report = restorer.restore(source, on_progress=seen.append)
    assert report.output == tmp_path / "in.restored.mp4"
    before, after = read_frames(source), read_frames(report.output)
    assert report.frames == len(after) == count == seen[-1].frames
    assert seconds(after) == seconds(before)
    assert (after[0].width, after[0].height) == (480, 360)
    assert [t for t in threading.enumerate() if t.name.startswith("vr-trt")] == []


def test_the_picture_is_recognisable(tmp_path: Path, model: str) -> None:
    """Mean colours of a moving gradient survive decode, resize, the stages and encode."""
    source = make_video(tmp_path / "in.mp4", frames=30, size=(128, 96))
    with Restorer(model=model, profile="360p", color="none") as restorer:
        after = read_frames(restorer.restore(source).output)
    for one, other in zip(read_frames(source), after, strict=True):
        small = other.reformat(width=128, height=96).to_ndarray(format="rgb24").astype(float)
        difference = np.abs(small - one.to_ndarray(format="rgb24")).mean()
        assert difference < 12, difference


def test_an_image(tmp_path: Path, model: str) -> None:
    source = make_image(tmp_path / "in.png", size=(50, 30))
    with Restorer(model=model, profile="360p") as restorer:
        report = restorer.restore(source)
    assert report.output.name == "in.restored.png" and report.frames == 1
    assert (report.width, report.height) == (600, 360)


def test_the_same_seed_gives_the_same_file(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mp4", frames=12, size=(64, 36))
    pictures = []
    for name in ("one.mp4", "two.mp4"):
        with Restorer(model=model, profile="360p", seed=3) as restorer:
            restorer.restore(source, tmp_path / name)
        pictures.append([f.to_ndarray() for f in read_frames(tmp_path / name)])
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_step_and_flush(model: str) -> None:
    levels = np.arange(60, 60 + 33 * 3, 3)
    pictures = np.broadcast_to(levels[:, None, None, None], (33, 24, 32, 3)).astype(np.uint8)
    with Restorer(model=model, profile="360p", color="none") as restorer:
        batched = [*restorer.step(pictures[:20]), *restorer.step(pictures[20:]), *restorer.flush()]
        single = [out for picture in pictures for out in restorer.step(picture[None])]
        assert 0 < len(single) < 33  # some come early, a window's worth comes at the end
        single += restorer.flush()
        assert restorer.flush() == []
    assert len(batched) == len(single) == 33
    np.testing.assert_array_equal(batched, single)
    for i, picture in enumerate(batched):
        assert picture.shape == (360, 480, 3) and picture.dtype == np.uint8
        assert abs(int(picture.mean()) - int(levels[i])) <= 6


def test_a_single_picture_is_an_image(model: str) -> None:
    with Restorer(model=model, profile="360p") as restorer:
        assert restorer.step(np.full((1, 24, 32, 3), 99, np.uint8)) == []
        (picture,) = restorer.flush()
    assert abs(picture.mean() - 99) <= 1


def test_wrong_pictures_are_refused(model: str) -> None:
    with Restorer(model=model, profile="360p") as restorer:
        with pytest.raises(UsageError, match="uint8"):
            restorer.step(np.zeros((1, 8, 8, 3), np.float32))
        with pytest.raises(UsageError, match="not a list"):
            restorer.step([[[0, 0, 0]]])  # type: ignore[list-item]
        restorer.step(np.zeros((1, 8, 8, 3), np.uint8))
        with pytest.raises(UsageError, match="9x8 after 8x8: flush"):
            restorer.step(np.zeros((1, 8, 9, 3), np.uint8))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"profile": "4k"}, "unknown profile"),
        ({"color": "sepia"}, "colour correction 'sepia'.*wavelet, lab, adain, none"),
        ({"backend": "quantum"}, "backend 'quantum'"),
        ({"seed": -1}, "seed"),
        ({"threads": -2}, "threads"),
        ({"model": "seedvr9"}, "unknown model"),
    ],
)
def test_wrong_choices_are_refused(choice: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Restorer(**choice)  # type: ignore[arg-type]


def test_a_restorer_works_again_after_a_failed_run(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))

    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    with Restorer(model=model, profile="360p") as restorer:
        with pytest.raises(ZeroDivisionError):
            restorer.restore(source, on_progress=fail)
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
        assert restorer.restore(source).frames == 30


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))
    with Restorer(model=model, profile="360p") as restorer:
        networks = restorer._recipe.networks
        assert networks._own
        networks._own.session("decode_step").cancel()  # fails when it is reached, late in the run
        with pytest.raises(InterruptedRun, match="decode_step"):
            restorer.restore(source)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_variable_frame_rate_is_kept(tmp_path: Path, model: str) -> None:
    times = [0, 1, 2, 7, 8, 20, 21, 22, 30, 44]
    source = make_video(tmp_path / "in.mp4", frames=len(times), size=(64, 48), times=times)
    with Restorer(model=model, profile="360p") as restorer:
        after = read_frames(restorer.restore(source).output)
    assert seconds(after) == [Fraction(t, 25) for t in times]


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path, model: str) -> None:
    """The peak of a process that restores six times the frames is within 5 % of the other's."""
    peaks = []
    for frames in (150, 900):
        source = make_video(tmp_path / f"{frames}.mp4", frames=frames, size=(160, 90))
        code = (
            "import resource, sys; from vr_trt import Restorer\n"
            "Restorer(model=sys.argv[1], profile='360p').restore(sys.argv[2])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        run = [sys.executable, "-c", code, model, str(source)]
        peaks.append(int(subprocess.run(run, check=True, capture_output=True).stdout))
    assert peaks[1] < 1.05 * peaks[0], peaks
