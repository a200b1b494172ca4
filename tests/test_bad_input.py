"""Bad input through the command line: one line on standard error, an exit code, no trace on disk.

Input that is odd but right is restored.
"""

import _imp
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_image, make_video, read_frames

from vr_trt.cli import _end, exit_code, main
from vr_trt.runtime.journal import Journal


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def refused(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(code, input, *options): run it, expect `code` and one line, give the line back."""

    def check(code: int, *arguments: str | Path) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        options = ["--profile", "360p", "--model", model]
        found = exit_code(["run", *options, *map(str, arguments)])
        shown = capfd.readouterr()
        assert shown.out == ""
        lines = shown.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("vr-trt: "), shown.err
        assert found == code, lines[0]
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return lines[0]

    return check


@pytest.fixture
def restored(model: str, tmp_path: Path) -> Callable[..., Path]:
    """restored(input): run it, expect success and nothing but the output beside it."""

    def check(source: Path) -> Path:
        output = tmp_path / f"out{'.png' if source.suffix == '.png' else '.mp4'}"
        arguments = ["run", str(source), "-o", str(output), "--profile", "360p", "--model", model]
        assert exit_code(arguments) == 0
        assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name}
        return output

    return check


def test_missing_file(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "none.mp4" in refused(2, tmp_path / "none.mp4")


def test_directory(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    assert "directory" in refused(2, tmp_path / "folder.mp4")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"Dear diary, this is no film.\n" * 50),
        ("noise.mkv", bytes(range(256)) * 200),
        ("short.png", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_files_that_are_no_video(
    refused: Callable[..., str], tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    line = refused_with_any(refused, (2, 5), tmp_path / name)
    assert name in line


def refused_with_any(refused: Callable[..., str], codes: tuple[int, ...], source: Path) -> str:
    """Unsupported or damaged: which of the two a wreck is, is the demuxer's opinion."""
    try:
        return refused(codes[0], source)
    except AssertionError:
        return refused(codes[1], source)


def test_truncated_mp4(refused: Callable[..., str], tmp_path: Path) -> None:
    """Its table of contents was at the end: nothing can be recovered."""
    source = make_video(tmp_path / "cut.mp4", frames=20, size=(64, 48))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert "cut.mp4" in refused(5, source)


def test_truncated_mkv_gives_what_is_left(restored: Callable[..., Path], tmp_path: Path) -> None:
    source = make_video(tmp_path / "cut.mkv", frames=40, size=(64, 48))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    assert 10 < len(read_frames(restored(source))) < 40


def test_audio_only(refused: Callable[..., str], tmp_path: Path) -> None:
    source = make_video(tmp_path / "both.mp4", frames=20, size=(64, 48), audio=True)
    sound = tmp_path / "sound.m4a"
    copy_audio(source, sound)
    assert "sound.m4a" in refused(2, sound)


def copy_audio(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as before, av.open(str(target), "w", format="mp4") as after:
        stream = after.add_stream_from_template(before.streams.audio[0])
        for packet in before.demux(before.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                after.mux(packet)


def test_no_frames(refused: Callable[..., str], tmp_path: Path) -> None:
    """A video stream is announced and nothing is in it."""
    source = make_video(tmp_path / "none.mkv", frames=0, size=(64, 48))
    assert "none.mkv" in refused(5, source)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 33), (5, 2)])
def test_odd_and_tiny_videos(
    restored: Callable[..., Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    source = make_video(tmp_path / "odd.mkv", frames=3, size=size, pixel="yuv444p")
    frames = read_frames(restored(source))
    assert len(frames) == 3
    assert min(frames[0].width, frames[0].height) == 360
    assert abs(frames[0].width / frames[0].height / (size[0] / size[1]) - 1) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 33)])
def test_odd_and_tiny_images(
    restored: Callable[..., Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    (frame,) = read_frames(restored(make_image(tmp_path / "odd.png", size=size)))
    assert min(frame.width, frame.height) == 360


@pytest.mark.parametrize("count", range(1, 10))
def test_one_to_nine_frames(restored: Callable[..., Path], tmp_path: Path, count: int) -> None:
    source = make_video(tmp_path / "few.mp4", frames=count, size=(64, 48))
    assert len(read_frames(restored(source))) == count


@pytest.mark.parametrize("pixel", ["yuv420p10le", "yuv422p10le", "yuv444p"])
def test_other_pixel_formats(restored: Callable[..., Path], tmp_path: Path, pixel: str) -> None:
    source = make_video(tmp_path / "deep.mp4", frames=6, size=(64, 48), pixel=pixel)
    (frame, *_) = read_frames(restored(source))
    assert frame.format.name == ("yuv420p" if pixel == "yuv444p" else "yuv420p10le")


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation(restored: Callable[..., Path], tmp_path: Path, rotation: int) -> None:
    source = make_video(tmp_path / "turned.mp4", frames=6, size=(64, 36), rotation=rotation)
    frame = read_frames(restored(source))[0]
    upright = (640, 360) if rotation == 180 else (360, 640)
    assert (frame.width, frame.height, frame.rotation) == (*upright, 0)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in.mp4", frames=12, size=(64, 48))


def test_output_over_input(refused: Callable[..., str], film: Path) -> None:
    assert "input" in refused(2, film, "-o", film, "--overwrite")
    link = film.with_name("link.mp4")
    link.symlink_to(film)
    assert "input" in refused(2, film, "-o", link, "--overwrite")


def test_output_exists(refused: Callable[..., str], film: Path) -> None:
    (film.parent / "out.mp4").write_text("precious")
    assert "out.mp4" in refused(2, film, "-o", film.parent / "out.mp4")


@pytest.mark.parametrize("name", ["no/such/folder/out.mp4", "in.mp4/out.mp4", "out.xyz", "out"])
def test_output_that_cannot_be(refused: Callable[..., str], film: Path, name: str) -> None:
    assert "out" in refused(2, film, "-o", film.parent / name)


def test_unwritable_target(refused: Callable[..., str], film: Path) -> None:
    """Nobody may make files in /sys, not even root, whom a folder's mode does not stop."""
    assert "/sys" in refused(2, film, "-o", "/sys/out.mp4")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--profile", "4k"], 2, "2160p"),
        (["--model", "seedvr9"], 2, "nano"),
        (["--model", "seedvr2-3b"], 3, "vr-trt weights pull seedvr2-3b"),
        (["--color", "sepia"], 2, "sepia"),
        (["--crf", "99"], 2, "99"),
        (["--preset", "warp"], 2, "warp"),
        (["--seed", "-4"], 2, "seed"),
        (["--threads", "-1"], 2, "threads"),
        (["--threads", "3000000000"], 2, "give 1 to 1024"),
        (["--workers", "100000"], 2, "1024 at most"),
        (["--bitrate", "9" * 25], 2, "bits per second"),
        (["--card-memory", "inf"], 2, "GB of the card"),
    ],
)
def test_wrong_options(
    refused: Callable[..., str], film: Path, options: list[str], code: int, said: str
) -> None:
    assert said in refused(code, film, *options)


def test_damaged_model(refused: Callable[..., str], film: Path, tmp_path: Path) -> None:
    folder = make_fake_model(tmp_path / "model")
    (folder / "generator.onnx").write_bytes(b"damaged")
    assert "generator.onnx" in refused(3, film, "--model", folder)


def test_too_large_for_the_memory(
    refused: Callable[..., str], film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.runtime import plan, serving
    from vr_trt.runtime.memory import Law

    law = Law(**{field.name: 1e9 for field in fields(Law)})
    monkeypatch.setattr(serving, "law_of", lambda manifest: law)
    monkeypatch.setattr(plan, "available_bytes", lambda: 500_000_000)
    assert "MiB" in refused(4, film)


def command(film: Path, model: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vr_trt", "run", str(film), "--profile", "360p", "--model", model),
        *options,
    ]


def test_full_disk(film: Path, model: str) -> None:
    """A limit on the size of files stands for the end of the disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    run = subprocess.run(
        command(film, model), preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.splitlines()) == 1 and "full" in run.stderr
    assert [path.name for path in film.parent.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(tmp_path: Path, model: str, number: signal.Signals) -> None:
    film = make_video(tmp_path / "long.mp4", frames=1500, size=(64, 36))
    process = subprocess.Popen(
        command(film, model, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # Tests may be run by something that ignores signals, as `nohup` does.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None
    process.stdout.readline()  # the run has begun
    process.stdout.readline()
    start = time.perf_counter()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert time.perf_counter() - start < 2
    assert process.returncode == 130
    assert errors == "vr-trt: stopped by the user\n"
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (OSError(28, "full"), 2)])
def test_a_run_that_ends_with_its_beginning_leaves_no_folder(
    tmp_path: Path,
    film: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    """Ctrl-C, or a full disk, while the journal's first line is written."""

    def stop(journal: Journal) -> None:
        assert journal.folder.is_dir()
        raise error

    monkeypatch.setattr(Journal, "begin", stop)
    before = sorted(path.name for path in film.parent.iterdir())
    for options in ([], ["--overwrite"], ["--resume"]):
        output = ["-o", str(film.parent / "out.mp4"), *options]
        arguments = ["run", str(film), "--profile", "360p", "--model", model, *output]
        assert exit_code(arguments) == code
        assert sorted(path.name for path in film.parent.iterdir()) == before


@pytest.mark.usefixtures("signals_kept")
def test_ctrl_c_beside_a_verb_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Just before typer begins, or just after it has ended; and one more while Python goes."""

    def stop(arguments: Sequence[str]) -> int:
        signal.setitimer(signal.ITIMER_REAL, 60)  # as `_end` does while something is imported
        raise KeyboardInterrupt

    monkeypatch.setattr("vr_trt.cli.exit_code", stop)
    with pytest.raises(SystemExit, match="130"):
        main([])
    assert capsys.readouterr().err == "vr-trt: stopped by the user\n"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # without a traceback
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0  # would end Python in its last moments


def test_a_closed_pipe_is_no_accident(film: Path, model: str) -> None:
    """`vr-trt run --json | head -0` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        command(film, model, "--json"), stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "Traceback" not in run.stderr and "Exception" not in run.stderr


@pytest.mark.usefixtures("signals_kept")
def test_ctrl_c_does_not_leave_the_import_lock_behind() -> None:
    """A thread that imports would wait for it for ever, and the run for the thread."""
    _imp.acquire_lock()
    try:
        _end(signal.SIGINT, None)
        time.sleep(0.05)
    finally:
        _imp.release_lock()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)


@pytest.mark.parametrize("option", ["--report", "--trace"])
@pytest.mark.parametrize("name", ["film.mkv", "out.mp4", "link.mkv"])
def test_a_report_never_replaces_a_film(
    refused: Callable[..., str], tmp_path: Path, option: str, name: str
) -> None:
    film = make_video(tmp_path / "film.mkv", frames=3, size=(64, 48))
    (tmp_path / "link.mkv").symlink_to(film)
    output = tmp_path / "out.mp4"
    assert "is the input or the output of this run" in refused(
        2, film, "-o", output, option, tmp_path / name
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["film.mkv", "-o", "out.gif"], "an output ends in .mp4"),
        (["film.mkv", "-o", "out"], "an output ends in .mp4"),
        (["film.mkv", "-o", "."], "is a directory"),
        (["film.mkv", "-o", "out.webm", "--codec", "h264"], "cannot be put into a .webm"),
        (["f%03d.png", "-o", "out.mp4"], "give the folder, and a rate like -r 24"),
        (["film.mkv", "--cuts", "none.txt", "-o", "out.mp4"], "none.txt cannot be read: No such"),
        (["film.mkv", "--report", "a.json", "--trace", "a.json"], "cannot be both"),
    ],
)
def test_wrong_names_are_said(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    make_video(tmp_path / "film.mkv", frames=3, size=(64, 48))
    monkeypatch.chdir(tmp_path)
    assert says in refused(2, *arguments)


@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("a.mkv", [], "a.restored.mkv"),
        ("a.mp4", [], "a.restored.mp4"),
        ("a.mkv", ["--codec", "prores"], "a.restored.mkv"),
        ("a.mp4", ["--codec", "prores"], "a.restored.mov"),
        ("a.mp4", ["--codec", "ffv1"], "a.restored.mkv"),
    ],
)
def test_an_output_is_named_after_its_input(
    model: str, tmp_path: Path, name: str, options: list[str], made: str
) -> None:
    source = make_video(tmp_path / name, frames=2, size=(64, 48))
    arguments = ["run", str(source), *options, "--profile", "360p", "--model", model]
    assert exit_code(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {name, made}
