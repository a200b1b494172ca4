"""One file over several workers: bit for bit one worker's, whoever is killed on the way."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.media import make_image
from tests.spreading import FRAMES, children, command, run, segments, slow_after, wait_for_none

from vr_trt.cli import exit_code
from vr_trt.runtime.journal import folder_of

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_file_is_that_of_one_worker(
    film: Path, model: str, tmp_path: Path, whole: bytes, workers: int
) -> None:
    """With a shot of 60 frames in stretches, which this model's endless memory refutes."""
    output = tmp_path / "out.mp4"
    done = run(film, model, output, "--workers", str(workers), "--json")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole
    events = [json.loads(line) for line in done.stdout.splitlines()]
    frames = [event["frames"] for event in events]
    assert frames == sorted(frames) and frames[-1] == FRAMES
    assert events[-1]["timing"]["stages"]["encode_start"]["calls"] > 6  # stretches of shots
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def run_with_deaths(
    film: Path, model: str, output: Path, most: int
) -> subprocess.CompletedProcess[str]:
    """A run of two workers, of which so many kill themselves on an item; see tests/small."""
    deaths = output.parent / "deaths"
    deaths.mkdir()
    return subprocess.run(
        command(film, model, output, "--workers", "2"),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DEATHS": str(deaths), "MOST_DEATHS": str(most)},
    )


def test_workers_die_on_their_items(film: Path, model: str, tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "out.mp4"
    done = run_with_deaths(film, model, output, 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done again") == len(list((tmp_path / "deaths").iterdir())) >= 2
    assert output.read_bytes() == whole


def kill_workers(process: subprocess.Popen[str], generator: random.Random) -> int:
    """Kill -9 two of a run's workers, at random moments; how many were there to be killed."""
    killed = 0
    while process.poll() is None and killed < 2:
        time.sleep(generator.uniform(0, 0.2))
        if workers := children(process.pid):
            os.kill(generator.choice(workers), signal.SIGKILL)
            killed += 1
    return killed


@pytest.mark.slow
def test_many_workers_are_killed(film: Path, model: str, tmp_path: Path, whole: bytes) -> None:
    total = told = 0
    for seed in range(9):
        output = tmp_path / f"{seed}.mp4"
        process = subprocess.Popen(
            command(film, model, output, "--workers", "2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        generator = random.Random(seed)
        while process.poll() is None and segments(output) < generator.randint(1, 4):
            time.sleep(0.002)
        total += kill_workers(process, generator)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, f"seed {seed}: {errors}"
        told += errors.count("done again")
        assert output.read_bytes() == whole, f"seed {seed}"
    assert total >= 9 and told, f"{total} kills, {told} of them on an item"


def test_workers_that_always_die_end_the_run_in_one_line(
    film: Path, model: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    done = run_with_deaths(film, model, output, 1000)
    assert done.returncode == 1
    assert done.stderr.startswith("vr-trt: frames ") and len(done.stderr.splitlines()) == 1
    assert "3 workers ended on it (killed" in done.stderr
    assert not output.exists() and not folder_of(output).exists()


def start(
    film: Path, model: str, output: Path, enough: int, *options: str
) -> subprocess.Popen[str]:
    """A run of two workers that has completed so many segments."""
    process = subprocess.Popen(
        command(film, model, output, "--workers", "2", *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=slow_after(enough),
    )
    until = time.perf_counter() + 60
    while segments(output) < enough and process.poll() is None and time.perf_counter() < until:
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(("sent", "then"), [(signal.SIGKILL, "3"), (signal.SIGINT, "1")])
def test_the_run_is_stopped_and_taken_up_by_another_number_of_workers(
    film: Path, model: str, tmp_path: Path, whole: bytes, sent: signal.Signals, then: str
) -> None:
    """No worker outlives it, and what is complete is not made again."""
    output = tmp_path / "out.mp4"
    process = start(film, model, output, 5)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(sent)
    _, errors = process.communicate(timeout=20)
    assert not wait_for_none(workers, 5)
    if sent == signal.SIGINT:
        assert process.returncode == 130 and "frames are kept, --resume goes on" in errors
        assert len(errors.splitlines()) == 1
    arguments = command(film, model, output, "--workers", then, "--resume", "--json")
    at = arguments.index("--threads")
    del arguments[at : at + 2]  # the stopped run's number is taken over
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["frames"] == FRAMES and 0 < last["timing"]["frames"] < FRAMES


@pytest.mark.slow
def test_stopped_at_random_moments(film: Path, model: str, tmp_path: Path, whole: bytes) -> None:
    """Kill -9 of the run with its workers, three times, each time with another number of them."""
    for seed in range(20, 25):
        generator = random.Random(seed)
        output = tmp_path / f"{seed}.mp4"
        for _ in range(3):
            workers = str(generator.randint(2, 4))
            process = subprocess.Popen(
                command(film, model, output, "--workers", workers, "--resume"),
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            time.sleep(generator.uniform(0.4, 2))
            orphans = children(process.pid)
            process.kill()
            process.wait()
            assert not wait_for_none(orphans, 5), f"seed {seed}"
        done = run(film, model, output, "--resume", "--workers", str(generator.randint(1, 3)))
        assert done.returncode == 0, f"seed {seed}: {done.stderr}"
        assert output.read_bytes() == whole, f"seed {seed}"


def test_until_a_time_of_day(film: Path, model: str, tmp_path: Path) -> None:
    """The clock reaches it when two segments are in the journal."""
    output = tmp_path / "out.mp4"
    code = (
        "from datetime import datetime\nfrom pathlib import Path\n"
        "from vr_trt.runtime import film_run, spread_run\n"
        "class Clock(datetime):\n"
        "    @classmethod\n"
        "    def now(cls):\n"
        f"        journal = Path({str(folder_of(output) / 'journal.jsonl')!r})\n"
        "        late = journal.exists() and journal.read_text().count('first') > 1\n"
        "        return datetime(2030, 1, 1, 7 if late else 6)\n"
        "film_run.datetime = spread_run.datetime = Clock\n"
    )
    arguments = command(film, model, output, "--workers", "2", "--until", "07:00")
    arguments[2] = code + arguments[2]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 130 and "stopped at 07:00" in done.stderr, done.stderr
    assert segments(output) >= 1 and len(done.stderr.splitlines()) == 1


def test_what_is_refused(
    film: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any work, in one line."""
    picture = make_image(tmp_path / "in.png", size=(50, 30))
    output = tmp_path / "out.mp4"
    for source, target, options, code, reason in (
        (picture, tmp_path / "out.png", ["--workers", "2"], 2, "an image has none"),
        (film, Path("-"), ["--workers", "2"], 2, "neither can be a pipe"),
        (film, output, ["--workers", "2", "--trace", str(tmp_path / "t")], 2, "one process"),
        (film, output, ["--gpus", "0,x"], 2, "numbers of cards"),
        (film, output, ["--gpus", "9" * 5000], 2, "numbers of cards"),
        (film, output, ["--gpus", "0,0"], 2, "named twice"),
        (film, output, ["--gpus", "99"], 2, "there is no GPU 99"),
        (film, output, ["--gpus", "0", "--workers", "2"], 2, "leave out --workers"),
    ):
        arguments = ["run", str(source), "--profile", "360p", "--model", model]
        assert exit_code([*arguments, "-o", str(target), *options]) == code
        said = capsys.readouterr().err
        assert reason in said and len(said.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]


def test_workers_that_do_not_fit_are_refused_before_work(film: Path, tmp_path: Path) -> None:
    """nano's memory law, times a thousand."""
    output = tmp_path / "out.mp4"
    done = run(film, "nano", output, "--workers", "1000")
    assert done.returncode == 4 and "1000 workers at 360p need about" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_network_that_ships_makes_the_same_file_on_two_workers(
    film: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.mp4", tmp_path / "two.mp4"
    for output, workers in ((one, "1"), (two, "2")):
        done = run(film, "nano", output, "--range", "0-19", "--workers", workers)
        assert done.returncode == 0, done.stderr
    assert one.read_bytes() == two.read_bytes()
