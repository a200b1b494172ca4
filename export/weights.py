"""The published weights: what of them is here, whether it is what it should be, and getting it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from vr_trt.errors import ModelError
from vr_trt.export.weights_hashes import (
    check_hash,
    expected_hash,
    hash_file,
    remember_hash,
    remembered_hash,
    user_cache,
)
from vr_trt.export.weights_hub import cached, download
from vr_trt.export.weights_table import SHIPPED, WeightsFile, find, table

State = Literal["absent", "partial", "present", "verified", "damaged"]

FOLDER_VARIABLE = "VR_TRT_WEIGHTS"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """What is known about a file of the table without reading it."""

    file: WeightsFile
    state: State
    path: Path | None


def weights_folder(folder: Path | None = None) -> Path:
    """Where weights are kept: `folder`, else $VR_TRT_WEIGHTS, else the user's cache."""
    if folder is not None:
        return folder
    own = os.environ.get(FOLDER_VARIABLE)
    return Path(own).expanduser() if own else user_cache() / "weights"


def candidates(file: WeightsFile, folder: Path | None = None) -> Iterator[Path]:
    """Where `file` lies: our folder, the package (texts), then huggingface's own cache."""
    for place in (weights_folder(folder), SHIPPED):
        if (place / file.filename).is_file():
            yield place / file.filename
    if (path := cached(file)) is not None:
        yield path


def locate(file: WeightsFile, folder: Path | None = None) -> Path | None:
    """The first place where `file` lies, or None."""
    return next(candidates(file, folder), None)


def require(name: str, folder: Path | None = None) -> Path:
    """The path of the weights `name`, their hash checked (read again only if the file changed).

    Raises ModelError if they are not here or damaged.
    """
    file = find(name)
    path = _located(file, folder)
    found = remembered_hash(path)
    if found is None:
        found = _hash_and_remember(path)
    check_hash(file, path, found)
    return path


def verify(target: str, folder: Path | None = None) -> tuple[Path, str]:
    """Read and hash the file that `target` names, or that lies there; its path and sha256.

    Raises ModelError if it is absent, unknown or damaged.
    """
    here = Path(target).is_file()
    file = find(Path(target).name if here else target)
    path = Path(target) if here else _located(file, folder)
    found = _hash_and_remember(path)
    check_hash(file, path, found)
    return path, found


def _located(file: WeightsFile, folder: Path | None) -> Path:
    path = locate(file, folder)
    if path is None:
        raise ModelError(
            f"The weights {file.name} ({file.filename}) are not here; "
            f"get them with `vr-trt weights pull {file.name}`."
        )
    return path


def _hash_and_remember(path: Path) -> str:
    found = hash_file(path)
    remember_hash(path, found)
    return found


def pull(name: str, folder: Path | None = None) -> Path:
    """The path of the file `name`, downloaded unless a good copy is here.

    An interrupted download continues where it stopped. Raises ModelError (network, repository,
    hash) or UsageError (folder, disk space).
    """
    file = find(name)
    for path in candidates(file, folder):
        found = remembered_hash(path) or _hash_and_remember(path)
        if expected_hash(file) in (None, found):
            check_hash(file, path, found)
            return path
    return download(file, weights_folder(folder))


def local_files(folder: Path | None = None) -> list[LocalFile]:
    """Every file of the table and its state here; no file is read, so some are just `present`."""
    return [_local(file, folder) for file in table()]


def _local(file: WeightsFile, folder: Path | None) -> LocalFile:
    path = locate(file, folder)
    if path is None:
        partial = next(weights_folder(folder).glob(f"{file.filename}.*.part"), None)
        return LocalFile(file=file, state="partial" if partial else "absent", path=partial)
    found, expected = remembered_hash(path), expected_hash(file)
    state: State = "present"
    if found is not None and expected is not None:
        state = "verified" if found == expected else "damaged"
    return LocalFile(file=file, state=state, path=path)


def as_json(files: list[LocalFile]) -> str:
    """`files` as a JSON list, one object a file."""
    rows = [
        {field.name: getattr(local.file, field.name) for field in fields(WeightsFile)}
        | {"state": local.state, "path": str(local.path) if local.path else None}
        for local in files
    ]
    return json.dumps(rows, indent=1)
