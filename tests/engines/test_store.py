"""Folders appear whole or not at all: killed writers, two writers, no room, no permission."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vr_trt.engines.store import Store, cache_folder, folder_bytes
from vr_trt.errors import MemoryBudgetError, ModelError

# Publishes folders of two files that must agree, again and again; tells of each lock it waited for.
WRITER = """
import sys, time
from pathlib import Path
from vr_trt.engines.store import Store
store, count, pause = Store(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
for i in range(count):
    with store.lock("name", lambda: print("waits", flush=True)):
        with store.publishing("name") as folder:
            print("writes", flush=True)
            (folder / "a").write_text(str(i) * 1000)
            time.sleep(pause)
            (folder / "b").write_text(str(i) * 1000)
"""


def start_writer(root: Path, count: int, pause: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(count), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
    )


def publish(store: Store, name: str, text: str = "text") -> None:
    with store.lock(name), store.publishing(name) as folder:
        (folder / "file").write_text(text)


def is_whole(folder: Path) -> bool:
    return (folder / "a").read_text() == (folder / "b").read_text()


def test_a_folder_appears_and_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "root")
    assert store.names() == []
    publish(store, "x", "old")
    publish(store, "x", "new")
    assert store.names() == ["x"] and (store.path("x") / "file").read_text() == "new"
    assert folder_bytes(store.path("x")) == 3
    assert {p.name for p in store.root.rglob("*")} == {".locks", "x", "file"}


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, "x", "old")
    with pytest.raises(ZeroDivisionError), store.lock("x"), store.publishing("x") as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert (store.path("x") / "file").read_text() == "old"
    assert {p.name for p in tmp_path.rglob("*")} == {".locks", "x", "file"}


def test_a_kill_at_any_moment_leaves_a_valid_cache(tmp_path: Path) -> None:
    moments = random.Random(0)
    store, survived = Store(tmp_path), 0
    for _ in range(12):
        with start_writer(tmp_path, 10_000, 0.001) as process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(moments.uniform(0, 0.05))
            process.kill()
        # An older folder may be on its way out in that moment, but never half of a new one.
        if store.path("name").is_dir():
            survived += 1
            assert is_whole(store.path("name"))
        assert not store.is_locked("name")
    publish(store, "name")
    assert store.leftovers() == [] and survived > 6
    assert {p.name for p in tmp_path.iterdir()} == {".locks", "name"}


def test_leftovers_are_those_that_nobody_is_making(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / ".dead~0123abcd").mkdir()
    (tmp_path / ".dead~0123abcd" / "plan").write_text("half")
    with start_writer(tmp_path, 1, 30) as process:
        assert process.stdout is not None and process.stdout.readline() == "writes\n"
        assert [p.name for p in store.leftovers()] == [".dead~0123abcd"]
        process.send_signal(signal.SIGKILL)
    assert len(store.leftovers()) == 2
    store.remove_leftovers()
    assert [p.name for p in tmp_path.iterdir()] == [".locks"]


def test_two_writers_take_turns(tmp_path: Path) -> None:
    first = start_writer(tmp_path, 5, 0.02)
    second = start_writer(tmp_path, 5, 0.02)
    said = "".join(process.communicate(timeout=60)[0] for process in (first, second))
    assert first.returncode == second.returncode == 0
    assert said.count("writes") == 10 and is_whole(tmp_path / "name")
    assert {p.name for p in tmp_path.iterdir()} == {".locks", "name"}
    assert not list((tmp_path / ".locks").iterdir())


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (errno.ENOSPC, MemoryBudgetError, "is full"),
        (errno.EROFS, ModelError, "Read-only file system; set VR_TRT_CACHE"),
        (errno.EACCES, ModelError, "Permission denied; set VR_TRT_CACHE"),
    ],
)
@pytest.mark.parametrize("call", ["open", "mkdir", "fsync", "rename"])
def test_a_cache_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    kind: type[Exception],
    message: str,
) -> None:
    store = Store(tmp_path)
    publish(store, "other")
    real = getattr(os, call)

    def fails(*arguments: Any, **options: Any) -> Any:
        if call != "open" or arguments[1] & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(tmp_path))
        return real(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(kind, match=message):
        patch.setattr(os, call, fails)
        publish(store, "x")
    assert {p.name for p in tmp_path.iterdir()} == {".locks", "other"}
    assert not list((tmp_path / ".locks").iterdir())


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="set VR_TRT_CACHE"):
        publish(Store(tmp_path / "file" / "root"), "x")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("VR_TRT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vr-trt"
