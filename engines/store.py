"""A folder of finished folders: each appears whole, in one step, or not at all.

    <root>/<name>/…            finished; what is in it does not change any more
    <root>/.<name>~<letters>/  being made, or left behind by a process that was killed
    <root>/.locks/<name>       held by whoever makes <name>

The lock is the operating system's: it ends with the process that holds it, however it ends.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vr_trt.errors import MemoryBudgetError, ModelError

CACHE_VARIABLE = "VR_TRT_CACHE"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_folder() -> Path:
    """$VR_TRT_CACHE, else `vr-trt` in the user's cache."""
    from vr_trt.export.weights_hashes import user_cache

    own = os.environ.get(CACHE_VARIABLE)
    return Path(own).expanduser().absolute() if own else user_cache()


class Store:
    """The finished folders below `root`, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The finished folders, in order."""
        with writing(self.root):
            return sorted(path.name for path in self._folders() if not path.name.startswith("."))

    def path(self, name: str) -> Path:
        """Where the folder `name` is, or would be."""
        return self.root / name

    @contextmanager
    def lock(self, name: str, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to make or remove `name`; `waits` is called if another process has it.

        Whatever processes that were killed left of `name` is removed. ModelError where the folder
        cannot be written.
        """
        with writing(self.root):
            handle = self._locked(name, waits)
        try:
            with writing(self.root):
                self._remove_leftovers(name)
            yield
        finally:
            _unlock(handle, self.root / ".locks" / name)

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        """A new empty folder that becomes `name` when the block ends well; needs the lock.

        An older folder of that name gives way in the same moment. Nothing is left if it ends
        otherwise.
        """
        folder = self._beside(name)
        try:
            with writing(self.root):
                folder.mkdir()
            yield folder
            with writing(self.root):
                _sync(folder)
                self._swap(folder, self.path(name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Delete the finished folder `name`; needs the lock."""
        with writing(self.root):
            hidden = self._beside(name)
            self.path(name).rename(hidden)  # gone in one step, whatever happens next
            shutil.rmtree(hidden)

    def leftovers(self) -> list[Path]:
        """Folders of processes that were killed: nobody holds the lock of their name."""
        with writing(self.root):
            return [path for path in self._unfinished() if not self.is_locked(_name_of(path))]

    def remove_leftovers(self) -> None:
        """Delete what killed processes left."""
        for path in self.leftovers():
            with self.lock(_name_of(path)):
                pass  # taking the lock removes them

    def is_locked(self, name: str) -> bool:
        """True while a process makes or removes `name`."""
        try:
            handle = os.open(self.root / ".locks" / name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(handle)
        finally:
            os.close(handle)

    def _locked(self, name: str, waits: Callable[[], None]) -> int:
        path = self.root / ".locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _try_lock(handle):
                    waits()
                    fcntl.flock(handle, fcntl.LOCK_EX)
                # Whoever had it removed the file: then this is a lock of nothing.
                if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _remove_leftovers(self, name: str) -> None:
        for path in self._unfinished():
            if _name_of(path) == name:
                shutil.rmtree(path, ignore_errors=True)  # a dying child may still write there

    def _unfinished(self) -> list[Path]:
        return sorted(p for p in self._folders() if p.name.startswith(".") and "~" in p.name)

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.root.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []

    def _beside(self, name: str) -> Path:
        return self.root / f".{name}~{secrets.token_hex(4)}"

    def _swap(self, new: Path, place: Path) -> None:
        old = self._beside(place.name)
        if place.exists():
            place.rename(old)
        new.rename(place)
        _sync_entry(self.root)
        if old.exists():
            shutil.rmtree(old)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn what the file system can raise below `root` into one line about the cache."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MemoryBudgetError(
                f"the disk of the cache {root} is full: remove engines with `vr-trt engines "
                f"prune`, or set {CACHE_VARIABLE} to a folder elsewhere"
            ) from error
        raise ModelError(
            f"the cache {root} cannot be used: {error.filename or root}: {error.strerror}; "
            f"set {CACHE_VARIABLE} to a folder of your own"
        ) from error


def folder_bytes(folder: Path) -> int:
    """Bytes of all the files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _name_of(unfinished: Path) -> str:
    return unfinished.name[1:].rpartition("~")[0]


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(handle: int, path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    """Bring every file of `folder` to disk, and then their names."""
    for path in folder.rglob("*"):
        _sync_entry(path)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
