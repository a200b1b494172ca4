"""Runs that are killed, interrupted or misfit, and what comes of going on with them."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.fake_model import make_fake_model
from tests.media import picture
from tests.spreading import slow_after

from vr_trt.cli import exit_code
from vr_trt.runtime.journal import Journal, folder_of

# The command line with segments of a few frames, so that a short clip has many.
RUN = """
import sys
from vr_trt.runtime import film
film.SEGMENT_FRAMES, film.SHOT_SEGMENT_FRAMES = 12, 6
from vr_trt.cli import main
main(sys.argv[1:])
"""
FRAMES = 90
CUTS = (25, 61)

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots of uneven timing, with sound."""
    path = tmp_path_factory.mktemp("film") / "in.mkv"
    generator = np.random.default_rng(2)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        tone = container.add_stream("aac", rate=48000, layout="mono")
        at = 0
        for i in range(FRAMES):
            if i in (0, *CUTS):
                blocks = generator.integers(0, 255, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
            mixed = (blocks * 0.7 + picture(i, 64, 48) * 0.3).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(mixed, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            at += 40 if i % 7 else 95
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(
            np.sin(np.arange(48 * at) / 20, dtype=np.float32)[None], format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts = 48000, 0
        container.mux(tone.encode(sound))
        container.mux(tone.encode(None))
    return path


def command(film: Path, model: str, output: Path, *options: str) -> list[str]:
    fixed = ["--profile", "360p", "--model", model, "--threads", "1", "-o", str(output)]
    return [sys.executable, "-c", RUN, "run", str(film), *fixed, *options]


def run(film: Path, model: str, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = command(film, model, output, *options)
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def content(path: Path) -> list[tuple[str, Fraction]]:
    """Hash and time of every frame, and of every packet of sound."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            pixels = hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()
            found.append((pixels, frame.pts * frame.time_base))
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                when = (packet.pts or 0) * packet.time_base
                found.append((hashlib.sha256(bytes(packet)).hexdigest(), when))
    return found


@pytest.fixture(scope="module")
def whole(
    film: Path, model: str, small_pictures: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a run makes that nobody disturbs."""
    output = tmp_path_factory.mktemp("whole") / "out.mp4"
    done = run(film, model, output)
    assert done.returncode == 0, done.stderr
    assert len(content(output)) > FRAMES
    assert [path.name for path in output.parent.iterdir()] == ["out.mp4"]
    return output


def test_the_film_before_the_stop_is_not_read_again(
    film: Path, model: str, tmp_path: Path, whole: Path
) -> None:
    """The third shot begins with frame 61; what is read begins a segment before it."""
    output = tmp_path / "out.mp4"
    process = subprocess.Popen(
        command(film, model, output), stderr=subprocess.DEVNULL, env=slow_after(4)
    )
    while process.poll() is None and not journal_says(output, '"shot": 61'):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    done = run(film, model, output, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["timing"]["stages"]["read"]["calls"] < FRAMES - 40
    assert content(output) == content(whole)


def journal_says(output: Path, words: str) -> bool:
    try:
        return words in (folder_of(output) / "journal.jsonl").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mkv", ("--codec", "hevc", "--bits", "10", "--preset", "ultrafast")),
        ("out.webm", ("--codec", "av1", "--preset", "12")),
        ("out.mov", ("--codec", "prores")),
    ],
)
def test_other_codecs_survive_a_kill(
    film: Path, model: str, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    expected, output = tmp_path / f"whole-{name}", tmp_path / name
    assert run(film, model, expected, *options).returncode == 0
    process = subprocess.Popen(
        command(film, model, output, *options), stderr=subprocess.DEVNULL, env=slow_after(3)
    )
    while process.poll() is None and segments(output) < 3:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert run(film, model, output, *options, "--resume").returncode == 0
    assert content(output) == content(expected)


@pytest.mark.slow
def test_the_shipped_model_is_entered_midway(film: Path, tmp_path: Path) -> None:
    """Its VAE is warmed up instead of begun at the shot's start: to the last bit the same."""
    expected, output = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    options = ["--cuts", "none", "--range", "0-36"]
    assert run(film, "nano", expected, *options).returncode == 0
    process = subprocess.Popen(command(film, "nano", output, *options), env=slow_after(1))
    while process.poll() is None and segments(output) < 1:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert run(film, "nano", output, *options, "--resume").returncode == 0
    assert content(output) == content(expected)


def segments(output: Path) -> int:
    return len(list(folder_of(output).glob("*.segment")))


def kill_and_resume(film: Path, model: str, output: Path, moments: list[tuple[int, float]]) -> int:
    """Kill -9 so many new segments and seconds after each start, then let it end; how often."""
    killed = 0
    for new, seconds in moments:
        enough = segments(output) + new
        process = subprocess.Popen(
            command(film, model, output, "--resume"), stderr=subprocess.PIPE, env=slow_after(0)
        )
        while process.poll() is None and segments(output) < enough:
            time.sleep(0.002)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL
        killed += 1
    done = run(film, model, output, "--resume")
    assert done.returncode == 0, done.stderr
    return killed


def check_kills(film: Path, model: str, folder: Path, whole: Path, seeds: range) -> None:
    kills = 0
    for seed in seeds:
        generator = random.Random(seed)
        moments = [(generator.randrange(4), generator.uniform(0, 0.3)) for _ in range(3)]
        output = folder / f"{seed}.mp4"
        kills += kill_and_resume(film, model, output, moments)
        assert content(output) == content(whole), f"seed {seed}, killed at {moments}"
        assert not folder_of(output).exists()
    assert kills > len(seeds)


def test_killed_at_random_moments(film: Path, model: str, tmp_path: Path, whole: Path) -> None:
    check_kills(film, model, tmp_path, whole, range(1))


@pytest.mark.slow
def test_killed_at_many_random_moments(film: Path, model: str, tmp_path: Path, whole: Path) -> None:
    check_kills(film, model, tmp_path, whole, range(1, 16))


def stop_midway(film: Path, model: str, output: Path, sent: signal.Signals) -> str:
    """Interrupt the run once two segments are complete; what it said."""
    process = subprocess.Popen(
        command(film, model, output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=slow_after(2),
    )
    until = time.perf_counter() + 60
    while segments(output) < 2 and time.perf_counter() < until:
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    return errors


def test_ctrl_c_leaves_a_journal_that_fits_only_the_same_run(
    film: Path, model: str, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    said = stop_midway(film, model, output, signal.SIGINT)
    assert "frames are kept, --resume goes on" in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder_of(output).name]
    before = sorted(path.name for path in folder_of(output).iterdir())
    for options, reason in (
        (["--resume", "--seed", "3"], "had seed 0, this one has 3"),
        (["--resume", "--crf", "20"], "had crf None, this one has 20.0"),
        (["--resume", "--cuts", "none"], "had cuts auto, this one has none"),
        (["--resume", "--color", "none"], "had color wavelet"),
        ([], "--resume goes on with it"),
    ):
        assert exit_code(command(film, model, output, *options)[3:]) == 2
        refused = capsys.readouterr().err
        assert reason in refused and len(refused.splitlines()) == 1, refused
        assert sorted(path.name for path in folder_of(output).iterdir()) == before
    other = tmp_path / "other.mkv"
    other.write_bytes(film.read_bytes() + b"\0")
    assert exit_code(command(other, model, output, "--resume")[3:]) == 2
    assert "had input" in capsys.readouterr().err
    assert run(film, model, output, "--resume").returncode == 0
    assert content(output) == content(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.mkv", "out.mp4"]


def test_a_run_that_was_killed_before_its_first_segment_binds_nobody(tmp_path: Path) -> None:
    """`kill -9` leaves a folder in which nothing is kept: --resume may ask for anything then."""
    output = tmp_path / "out.mp4"
    killed = Journal(output, {"seed": 0})
    killed.begin()
    killed.segment_path(0).with_suffix(".partial").write_bytes(b"half a segment")
    killed.release()
    journal = Journal(output, {"seed": 3})
    journal.resume()
    assert json.loads((journal.folder / "journal.jsonl").read_text())["seed"] == 3
    assert {path.name for path in journal.folder.iterdir()} == {"journal.jsonl", "lock"}
    journal.close(keep=True)  # nothing is: the folder goes
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_torn_line_is_no_line_and_a_missing_segment_is_noticed(
    film: Path, model: str, tmp_path: Path, whole: Path
) -> None:
    output = tmp_path / "out.mp4"
    stop_midway(film, model, output, signal.SIGKILL)
    journal = folder_of(output) / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:2]) + "\n" + lines[2][:17])
    kept = json.loads(lines[1])["frames"]
    done = run(film, model, output, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["frames"], last["timing"]["frames"]) == (FRAMES, FRAMES - kept)
    assert content(output) == content(whole)
    output.unlink()
    stop_midway(film, model, output, signal.SIGKILL)
    (folder_of(output) / "00000000.segment").write_bytes(b"")
    refused = run(film, model, output, "--resume")
    assert refused.returncode == 2 and "00000000.segment is missing or damaged" in refused.stderr
    assert run(film, model, output, "--overwrite").returncode == 0
    assert content(output) == content(whole)


@pytest.mark.slow
def test_killed_after_the_last_frame(film: Path, model: str, tmp_path: Path, whole: Path) -> None:
    """All segments are complete, and the file may even have its name already."""
    output = tmp_path / "out.mp4"
    code = (
        "import os\nfrom vr_trt.runtime import writer\n"
        "old = writer.publish\n"
        "def publish(path):\n    {}\n    os.kill(os.getpid(), 9)\n"
        "writer.publish = publish\n"
    )
    arguments = command(film, model, output)
    arguments[2] = (
        "from vr_trt.runtime import journal\n"
        + code.replace(
            "writer.publish = publish", "journal.shutil.rmtree = lambda *_, **__: publish(None)"
        ).format("pass")
        + RUN
    )
    assert subprocess.run(arguments, check=False).returncode == -9
    assert output.exists() and folder_of(output).exists()
    done = run(film, model, output, "--resume")
    assert done.returncode == 0 and "nothing was done" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    output.unlink()
    for before in ("pass", "old(path)"):
        arguments = command(film, model, output)
        arguments[2] = code.format(before) + RUN
        assert subprocess.run(arguments, check=False).returncode == -9
        assert output.exists() == (before != "pass")
        assert run(film, model, output, "--resume").returncode == 0
        assert content(output) == content(whole)
        assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
        output.unlink()


def test_two_runs_of_one_output(film: Path, model: str, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    first = subprocess.Popen(
        command(film, model, output), stderr=subprocess.DEVNULL, env=slow_after(0)
    )
    while not (folder_of(output) / "journal.jsonl").exists():
        time.sleep(0.01)
    refused = run(film, model, output, "--resume")
    assert refused.returncode == 2 and "another run" in refused.stderr
    assert first.wait(60) == 0


def test_until_a_time_of_day(film: Path, model: str, tmp_path: Path) -> None:
    """The clock says a second before the time when the run begins, and the time ever after."""
    output = tmp_path / "out.mp4"
    code = (
        "from datetime import datetime\nfrom vr_trt.runtime import film_run\n"
        "times = [datetime(2030, 1, 1, 7), datetime(2030, 1, 1, 6, 59, 59)]\n"
        "class Clock(datetime):\n"
        "    @classmethod\n"
        "    def now(cls):\n"
        "        return times.pop() if len(times) > 1 else times[0]\n"
        "film_run.datetime = Clock\n"
    )
    arguments = command(film, model, output, "--until", "07:00")
    arguments[2] = code + RUN
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 130 and "stopped at 07:00" in done.stderr, done.stderr
    refused = run(film, model, output, "--until", "25:00")
    assert refused.returncode == 2 and "not a time of day" in refused.stderr


def test_a_range_is_a_film_of_its_own(film: Path, model: str, tmp_path: Path) -> None:
    """Frames 30 to 59: their times from zero, their sound, and nothing else."""
    output = tmp_path / "out.mkv"
    assert run(film, model, output, "--range", "30-60").returncode == 0
    with av.open(str(film)) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    with av.open(str(output)) as container:
        found = [float(frame.time or 0) for frame in container.decode(video=0)]
    assert found == pytest.approx([at - times[30] for at in times[30:60]], abs=0.0011)
    with av.open(str(output)) as container:
        sound = [float((p.pts or 0) * p.time_base) for p in container.demux(audio=0) if p.size]
    assert 0 <= sound[0] < 0.03 and sound[-1] < times[60] - times[30]
    assert os.listdir(tmp_path) == ["out.mkv"]
