"""What the writer refuses, and what it leaves behind when something goes wrong: nothing."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vr_trt.errors import DamagedInputError, UsageError, VrTrtError
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.journal import folder_of
from vr_trt.runtime.planes import Planes
from vr_trt.runtime.publish import output_errors, partial_path
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.writer import Writer, check_output

MakeClip = Callable[..., Path]
MakePicture = Callable[[int, int, int, str], Planes]


from tests.writing import copy_through, flat_planes, nothing_left, one_png, spec, times


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder.mp4", "is a directory"),
        ("out.avi", r"ends in \.mp4"),
        ("out", r"ends in \.mp4"),
        ("missing/out.mp4", "make it first"),
        ("in.mp4", "would replace the input"),
        ("link.mp4", "would replace the input"),
        ("old.mp4", "exists"),
        ("null.mp4", "is not a file and does not lead to one"),
        ("round.mp4", "is not a file and does not lead to one"),
        ("lost.mp4", "make it first"),
        ("out.png", "does not fit into one image"),
    ],
)
def test_impossible_targets_are_refused_before_work(
    tmp_path: Path, make_clip: MakeClip, name: str, says: str
) -> None:
    source = make_clip(tmp_path / "in.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "old.mp4").write_text("old")
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "null.mp4").symlink_to("/dev/null")
    (tmp_path / "round.mp4").symlink_to("round.mp4")
    (tmp_path / "lost.mp4").symlink_to("missing/out.mp4")
    info = probe(source)
    with pytest.raises(UsageError, match=says):
        Writer(spec(tmp_path / name, info, overwrite=name != "old.mp4"), info)
    assert (tmp_path / "old.mp4").read_text() == "old"
    assert nothing_left(tmp_path)


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UsageError, match="permission denied"):
        check_output(spec(tmp_path / "out.mp4", info), info)


@pytest.mark.parametrize(
    "choice",
    [{"crf": -1}, {"crf": 52}, {"preset": "turbo"}, {"size": (0, 8)}, {"size": (8, 20000)}],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, make_clip: MakeClip, choice: dict[str, Any]
) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(UsageError):
        spec(tmp_path / "out.mp4", info, **choice)


def test_an_old_file_stays_until_the_new_one_is_complete(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    source = make_clip(tmp_path / "in.mp4")
    target = tmp_path / "out.mp4"
    target.write_text("old")
    info = probe(source)
    with Reader(source) as reader, Writer(spec(target, info, overwrite=True), info) as writer:
        for frame in reader:
            writer.write(frame)
            assert target.read_text() == "old"
    assert len(times(target)) == 6
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_a_link_is_followed(
    tmp_path: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, name: str, there: bool
) -> None:
    """It stays a link, and all that is written lies on the disk that it leads to."""
    source = tmp_path / "in.png" if name == "out.png" else make_clip(tmp_path / "in.mp4")
    if name == "out.png":
        source.write_bytes(one_png())
    far, link = tmp_path / "far", tmp_path / name
    far.mkdir()
    if there:
        (far / name).write_text("old")
    link.symlink_to(Path("far", name))
    info = probe(source)
    monkeypatch.chdir(tmp_path)
    out = spec(Path(name), info, overwrite=there)
    assert partial_path(link).parent == folder_of(link).parent == far
    assert folder_of(link) == folder_of(far / name)  # one lock, whatever name was given
    with Writer(out, info) as writer:
        writer.write(Frame(flat_planes(out.pixel, out.width, out.height), 0, 1))
        assert {path.name for path in tmp_path.iterdir()} == {source.name, name, "far"}
    assert link.is_symlink() and [path.name for path in far.iterdir()] == [name]
    assert probe(far / name).width == info.width


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.png"])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, make_clip: MakeClip, name: str) -> None:
    if name == "out.png":
        (tmp_path / "in.png").write_bytes(one_png())
    source = tmp_path / "in.png" if name == "out.png" else make_clip(tmp_path / "in.mp4", audio=0.5)
    info = probe(source)
    out = spec(tmp_path / name, info)
    with pytest.raises(KeyboardInterrupt), Writer(out, info) as writer:
        writer.write(Frame(flat_planes(out.pixel, out.width, out.height), 0, 1))
        assert partial_path(out.path).exists() or folder_of(out.path).exists()
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {source.name}
    writer.abort()  # harmless


def test_no_frame_no_file(tmp_path: Path, make_clip: MakeClip) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(DamagedInputError, match="no frame"):
        Writer(spec(tmp_path / "out.mp4", info), info).close()
    assert not (tmp_path / "out.mp4").exists()
    assert nothing_left(tmp_path)


def test_a_second_frame_does_not_fit_into_an_image(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(one_png())
    info = probe(source)
    out = spec(tmp_path / "out.png", info)
    frame = Frame(flat_planes(out.pixel, 8, 8), 0, 1)
    writer = Writer(out, info)
    writer.write(frame)
    with pytest.raises(UsageError, match="one frame"):
        writer.write(frame)
    assert nothing_left(tmp_path)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the nearest thing to a full disk without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_a_full_disk_is_said_and_nothing_is_left(
    tmp_path: Path, make_clip: MakeClip, name: str
) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=60, size=(64, 48), audio=2)
    with pytest.raises(UsageError, match="disk is full"), file_size_limit(20_000):
        copy_through(source, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4"}


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, UsageError, "disk is full"),
        (errno.EDQUOT, UsageError, "disk is full"),
        (errno.EROFS, UsageError, "cannot be written"),
        (errno.EACCES, UsageError, "cannot be written"),
        (errno.EIO, VrTrtError, "writing failed"),
    ],
)
def test_system_errors_become_one_line(code: int, kind: type[VrTrtError], says: str) -> None:
    with pytest.raises(kind, match=says), output_errors(Path("out.mp4")):
        raise OSError(code, os.strerror(code))


def test_the_header_comes_first_for_streaming(tmp_path: Path, make_clip: MakeClip) -> None:
    copy_through(make_clip(tmp_path / "in.mp4", frames=30), tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_rgb_is_never_given_to_the_video_encoder(tmp_path: Path, make_clip: MakeClip) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    rgb = output_pixel(info.pixel, 32, 24, image=True)
    with pytest.raises(ValueError, match="yuv"):
        Writer(spec(tmp_path / "out.mp4", info, pixel=rgb), info)
    assert nothing_left(tmp_path)
