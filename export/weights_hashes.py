"""Hashes of large files, remembered, so that gigabytes are not read again at each start.

One JSON file in the user's cache: `files` maps a path to the size, time and sha256 it had;
`first` maps a published file without a published hash to the hash of the first copy met.
"""

import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.weights_table import WeightsFile

SECTIONS = ("files", "first")


def user_cache() -> Path:
    """Our folder in the user's cache ($XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vr-trt"


def hash_file(path: Path) -> str:
    """The sha256 of `path` in hexadecimal; ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}).") from error


def hash_once(path: Path) -> str:
    """`hash_file`, which reads a file once in the life of this process unless it changes."""
    return _hash_unchanged(path, *_stamp(path))


@cache
def _hash_unchanged(path: Path, size: int, time: int) -> str:
    return hash_file(path)


def remembered_hash(path: Path) -> str | None:
    """The sha256 of `path` if it has not changed since it was last hashed."""
    entry = _read()["files"].get(str(path.resolve()))
    if entry is None or [entry["size"], entry["time"]] != _stamp(path):
        return None
    found: str = entry["sha256"]
    return found


def known_hash(path: Path) -> str:
    """The sha256 of `path`, which is read only if it was never hashed or has changed since."""
    return remembered_hash(path) or hash_file(path)


def remember_hash(path: Path, sha256: str) -> None:
    """Record that `path`, as it is now, has this hash."""
    size, time = _stamp(path)
    _record("files", str(path.resolve()), {"size": size, "time": time, "sha256": sha256})


def expected_hash(file: WeightsFile) -> str | None:
    """The published sha256, else that of the first copy we met, else None."""
    found: str | None = file.sha256 or _read()["first"].get(file.address)
    return found


def check_hash(file: WeightsFile, path: Path, found: str) -> None:
    """Raise ModelError if `found`, the sha256 of `path`, is not that of `file`.

    Where none is published or recorded yet, `found` is recorded for every later copy.
    """
    expected = expected_hash(file)
    if expected is None:
        _record("first", file.address, found)
    elif found != expected:
        kind = "published" if file.sha256 else "recorded at the first download"
        raise ModelError(
            f"{path} is damaged or another file: its sha256 is {found[:12]}..., {kind} is "
            f"{expected[:12]}...; replace it with `vr-trt weights pull {file.name}`."
        )


def hashes_file() -> Path:
    """Where the hashes are kept."""
    return user_cache() / "hashes.json"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read() -> dict[str, dict[str, Any]]:
    path = hashes_file()
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {section: {} for section in SECTIONS}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}, our record of hashes, is unreadable: delete it.") from error
    if not isinstance(content, dict) or content.keys() != set(SECTIONS):
        raise ModelError(f"{path}, our record of hashes, is damaged: delete it.")
    return content


def _record(section: str, key: str, value: Any) -> None:
    content = _read()
    if content[section].get(key) == value:
        return
    content[section][key] = value
    content["files"] = {
        name: entry for name, entry in content["files"].items() if Path(name).exists()
    }
    path = hashes_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(content, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        raise UsageError(
            f"{path}, our record of hashes, cannot be written ({error.strerror or error}); "
            "point XDG_CACHE_HOME to a folder that can."
        ) from error
