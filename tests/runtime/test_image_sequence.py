"""Folders of images as films, films as numbered images, and pipes at both ends."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from tests.fake_model import make_fake_model
from tests.media import make_image, make_video, read_frames, seconds, with_orientation

from vr_trt.cli import exit_code
from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.image_sequence import image_files, is_numbered, numbered, parse_rate
from vr_trt.runtime.reader import Reader, probe

if TYPE_CHECKING:  # of the stubs alone
    from av.container.core import Chapter

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images, numbered without zeros, and what else lies about."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(1, 13):
        make_image(folder / f"scan{i}.png", size=(48 + 2 * (i == 99), 36))
    (folder / "notes.txt").write_text("none")
    make_image(folder / "cover.jpg.png.tmp.png", size=(48, 36)).rename(folder / ".hidden.png")
    return folder


def test_the_order_is_that_of_the_numbers(folder: Path) -> None:
    assert [path.stem for path in image_files(folder)] == [f"scan{i}" for i in range(1, 13)]
    make_image(folder / "²13.png", size=(48, 36))  # a digit, and no number to Python
    assert {path.stem for path in image_files(folder)} >= {"²13", "scan1"}


def test_a_folder_is_read_as_a_film(folder: Path) -> None:
    info = probe(folder, Fraction(24))
    assert (info.frames, info.time_base, info.is_image) == (12, Fraction(1, 24), False)
    with Reader(folder, info) as reader:
        frames = list(reader)
    assert [(frame.pts, frame.duration) for frame in frames] == [(i, 1) for i in range(12)]
    with pytest.raises(UsageError, match="like -r 24"):
        probe(folder)


def test_damaged_images_are_skipped_up_to_a_cap(folder: Path) -> None:
    (folder / "scan3.png").write_bytes(b"\x89PNG damaged")
    info = probe(folder, Fraction(24))
    with Reader(folder, info) as reader:
        times = [frame.pts for frame in reader]
    assert times == [0, 1, *range(3, 12)] and reader.skipped == 1
    for i in range(3, 13):
        (folder / f"scan{i}.png").write_bytes(b"")
    with Reader(folder, info) as reader, pytest.raises(DamagedInputError, match="9 images before"):
        list(reader)


def test_an_image_of_another_size_is_refused(folder: Path) -> None:
    make_image(folder / "scan7.png", size=(50, 36))
    said = "scan7.png is 50x36, the first image 48x36"
    with (
        Reader(folder, probe(folder, Fraction(24))) as reader,
        pytest.raises(UsageError, match=said),
    ):
        list(reader)


def test_what_of_a_folder_is_missing_is_said(folder: Path) -> None:
    assert probe(folder, Fraction(24)).guesses == ()
    (folder / "scan5.png").unlink()
    (folder / "scan6.png").unlink()
    (folder / "scan9.png").rename(folder / "scan9.jpg")
    assert probe(folder, Fraction(24)).guesses == (
        "1 image that is not .png is left out",
        "3 numbers are missing, the first between scan4.png and scan7.png",
    )


def test_a_grey_page_among_coloured_ones(folder: Path) -> None:
    page = make_image(folder / "scan4.png", size=(48, 36), pixel="gray")
    (shade,) = (frame.to_ndarray() for frame in read_frames(page))
    with Reader(folder, probe(folder, Fraction(24))) as reader:
        frames = list(reader)
    assert len(frames) == 12 and reader.skipped == 0
    assert all(np.array_equal(plane, shade) for plane in frames[3].planes)


def photographs(folder: Path, *exif: int) -> Path:
    """One upright picture of 48 x 32 as 4:2:2 JPEGs, each stored as its number says."""
    folder.mkdir()
    ramp = np.linspace(20, 230, 48)[None] * np.linspace(0.4, 1, 32)[:, None]
    for i, number in enumerate(exif):
        stored = np.rot90(ramp, {1: 0, 3: 2, 6: 1}[number])  # shown, it is turned back
        colour = np.ascontiguousarray(stored[:, :, None].repeat(3, axis=2).astype(np.uint8))
        frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
        path = folder / f"{i}.jpg"
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("mjpeg", rate=1, options={"qmin": "1", "q": "1"})
            stream.width, stream.height = frame.width, frame.height
            stream.pix_fmt = "yuvj422p"
            container.mux(stream.encode(frame.reformat(format="yuvj422p")))
            container.mux(stream.encode(None))
        with_orientation(path, number)
    return folder


def test_each_image_lies_as_it_says_itself(tmp_path: Path) -> None:
    """A camera that was held this way and that: all are upright, whatever the first one is."""
    for name, exif in (("first", (1, 6, 3, 1)), ("turned", (6, 1, 3))):
        folder = photographs(tmp_path / name, *exif)
        info = probe(folder, Fraction(24))
        assert (info.width, info.height) == (48, 32)
        with Reader(folder, info) as reader:
            frames = list(reader)
        assert len(frames) == len(exif)
        lumas = [frame.planes[0].astype(int) for frame in frames]
        assert all(np.abs(luma - lumas[0]).max() < 12 for luma in lumas)
        assert lumas[0][-1, -1] > 200 > lumas[0][0, -1] > lumas[0][0, 0] + 50


def test_an_image_that_lies_otherwise_and_does_not_say_so_is_refused(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photographs", 1, 6)
    with_orientation(folder / "1.jpg", 1)  # the first of two numbers counts
    with (
        Reader(folder, probe(folder, Fraction(24))) as reader,
        pytest.raises(UsageError, match="1.jpg is 32x48, the first image 48x32"),
    ):
        list(reader)


def test_rates() -> None:
    assert parse_rate("24000/1001") == Fraction(24000, 1001)
    assert parse_rate("12.5") == Fraction(25, 2)
    for wrong in ("0", "-3", "fast", "1/0", "5000", "1e999999999", "9" * 5000):
        with pytest.raises(UsageError, match="not a frame rate"):
            parse_rate(wrong)


def test_a_folder_becomes_a_film_and_a_film_a_folder(
    folder: Path, tmp_path: Path, model: str
) -> None:
    options = ["--profile", "360p", "--model", model]
    film = tmp_path / "film.mp4"
    assert exit_code(["plan", str(folder), "-r", "12.5", *options]) == 0
    assert exit_code(["plan", str(folder), *options]) == 2
    assert exit_code(["run", str(folder), "-r", "12.5", "-o", str(film), *options]) == 0
    frames = read_frames(film)
    assert seconds(frames) == [Fraction(2 * i, 25) for i in range(12)]
    images = tmp_path / "out"
    images.mkdir()
    pattern = str(images / "f%04d.png")
    assert exit_code(["run", str(film), "-o", pattern, *options]) == 0
    assert sorted(path.name for path in images.iterdir()) == [f"f{i:04}.png" for i in range(1, 13)]
    (last,) = read_frames(images / "f0012.png")
    assert (last.width, last.height) == (frames[0].width, frames[0].height)
    assert exit_code(["run", str(film), "-o", pattern, *options]) == 2  # they exist


def test_names_of_numbered_images() -> None:
    assert numbered(Path("a/f%05d.png"), 7).name == "f00007.png"
    assert numbered(Path("a/f%d.png"), 12).name == "f12.png"
    assert not is_numbered(Path("a/f%0999999999d.png"))


def piped(arguments: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vr_trt", "run", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def y4m(source: Path, target: Path) -> bytes:
    """A video as y4m."""
    with av.open(str(target), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, frame in enumerate(read_frames(source)):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.read_bytes()


@pytest.mark.parametrize("codec", ["h264", "y4m"])
@pytest.mark.parametrize("came", ["mkv", "y4m"])
def test_pipes_at_both_ends(tmp_path: Path, model: str, came: str, codec: str) -> None:
    source = make_video(tmp_path / "in.mkv", frames=23, size=(64, 48))
    given = source.read_bytes() if came == "mkv" else y4m(source, tmp_path / "in.y4m")
    options = ["--profile", "360p", "--model", model, "--codec", codec]
    done = piped(["-", "-o", "-", *options], given)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "out"
    output.write_bytes(done.stdout)
    frames = read_frames(output)
    assert (len(frames), frames[0].width, frames[0].height) == (23, 160, 120)
    assert [float(at) for at in seconds(frames)] == pytest.approx(
        [i / 25 for i in range(23)], abs=0.001
    )
    assert b"23 frames" in done.stderr


@pytest.mark.parametrize("live", [False, True])
def test_what_comes_with_piped_mkv_goes_on(tmp_path: Path, model: str, live: bool) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    silent = make_video(tmp_path / "in.mp4", frames=75, size=(64, 48), audio=True)
    with av.open(str(silent)) as before, av.open(str(source), "w") as after:
        after.metadata["title"] = "piped"
        copies = {s.index: after.add_stream_from_template(s) for s in before.streams}
        copies[1].metadata["language"] = "deu"
        after.add_attachment("letters.ttf", "application/x-truetype-font", b"no font" * 50)
        chapter: Chapter = {
            "id": 1,
            "start": 0,
            "end": 900,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": "one"},
        }
        after.set_chapters([chapter])
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    target = "-" if live else str(output)
    done = piped(["-", "-o", target, "--profile", "360p", "--model", model], source.read_bytes())
    assert done.returncode == 0 and b"sound" not in done.stderr, done.stderr
    if live:
        output.write_bytes(done.stdout)
    with av.open(str(source)) as given, av.open(str(output)) as found:
        kinds = [[stream.type for stream in c.streams] for c in (given, found)]
        assert kinds[0] == kinds[1] == ["video", "audio", "attachment"]
        assert found.metadata["title"] == "piped" and len(found.chapters()) == 1
        assert found.streams.audio[0].metadata["language"] == "deu"
        sound = [
            [(bytes(p), p.pts) for p in c.demux(c.streams.audio[0]) if p.size]
            for c in (given, found)
        ]
        assert sound[0] == sound[1] and len(sound[0]) > 120
    assert len(read_frames(output)) == 75


def test_what_does_not_come_through_a_pipe_is_said(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mkv", frames=12, size=(64, 48), audio=True)
    options = ["--profile", "360p", "--model", model]
    done = piped(["-", "-o", "-", "--codec", "y4m", *options], source.read_bytes())
    assert done.returncode == 0 and b"y4m has no sound: it is left out" in done.stderr
    stream = tmp_path / "in.ts"
    with av.open(str(source)) as before, av.open(str(stream), "w") as after:
        picture, sound = (
            after.add_stream("mpeg2video", rate=25),
            after.add_stream("mp2", rate=48000),
        )
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for frame in before.decode():
            if isinstance(frame, av.VideoFrame):
                after.mux(picture.encode(frame))
            elif isinstance(frame, av.AudioFrame):
                after.mux(sound.encode(frame))
    done = piped(["-", "-o", str(tmp_path / "out.mkv"), *options], stream.read_bytes())
    assert done.returncode == 0 and b"copied from mkv only: it is left out" in done.stderr


@pytest.mark.parametrize("came", ["file", "pipe"])
def test_a_part_of_the_sound_goes_through_standard_output(
    tmp_path: Path, model: str, came: str
) -> None:
    source = make_video(tmp_path / "in.mkv", frames=75, size=(64, 48), audio=True)
    name, given = (str(source), b"") if came == "file" else ("-", source.read_bytes())
    options = ["--range", "25-50", "--profile", "360p", "--model", model]
    done = piped([name, "-o", "-", *options], given)
    output = tmp_path / "out.mkv"
    output.write_bytes(done.stdout)
    assert len(read_frames(output)) == 25
    with av.open(str(output)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        heard = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.pts is not None]
    assert heard[0] == pytest.approx(0, abs=0.05) and heard[-1] == pytest.approx(1, abs=0.05)


def test_y4m_of_ten_bits(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mkv", frames=3, size=(64, 48), pixel="yuv420p10le")
    options = ["--profile", "360p", "--model", model]
    done = piped([str(source), "-o", "-", "--codec", "y4m", *options])
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    assert [f.format.name for f in read_frames(tmp_path / "out.y4m")] == ["yuv420p10le"] * 3


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["-"], b"", "say where to write"),
        (["-", "-o", "out.mp4"], b"this is no video at all\n" * 20, "standard input"),
        (["-", "-o", "out.mp4", "--resume"], None, "cannot be resumed"),
        (["-", "-o", "-", "--json"], None, "share standard output"),
        (["-", "-o", "out.mp4", "--codec", "y4m"], None, "standard output only"),
    ],
)
def test_what_pipes_cannot_do(
    tmp_path: Path, model: str, arguments: list[str], given: bytes | None, said: str
) -> None:
    source = make_video(tmp_path / "in.mkv", frames=3, size=(64, 48))
    target = [str(tmp_path / word) if word == "out.mp4" else word for word in arguments]
    data = source.read_bytes() if not given else given
    done = piped([*target, "--profile", "360p", "--model", model], data)
    assert done.returncode == 2 and said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
