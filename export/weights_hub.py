"""Downloading from huggingface's hub, continued where it stopped. Owns huggingface_hub.

`hf_hub_download` continues within one call but starts anew in the next process, so the parts of
a 33 GB file are kept here, named after the content they belong to.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.weights_hashes import (
    check_hash,
    expected_hash,
    hash_file,
    hashes_file,
    remember_hash,
)
from vr_trt.export.weights_table import WeightsFile

SHA256 = re.compile(r"[0-9a-f]{64}")
FULL = (errno.ENOSPC, errno.EDQUOT)


def cached(file: WeightsFile) -> Path | None:
    """The copy of `file` in huggingface's own cache, if there is one."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:  # then nothing has filled that cache
        return None
    path = try_to_load_from_cache(file.repository, file.filename)
    return Path(path) if isinstance(path, str) else None


def download(file: WeightsFile, folder: Path) -> Path:
    """Fetch `file` into `folder`, check its hash, and only then give it its name.

    Raises ModelError (network, repository, hash) or UsageError (folder, disk space).
    """
    hub = _hub()
    target = folder / file.filename
    with _explained(file, folder, hub):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(file, folder):
            part, tag = _fetch(file, folder, hub)
            _settle(file, part, target, tag)
    return target


def _fetch(file: WeightsFile, folder: Path, hub: ModuleType) -> tuple[Path, str]:
    """Complete `<filename>.<tag>.part` in `folder`; that path, and the hub's tag of the content."""
    from huggingface_hub.file_download import http_get

    url = hub.hf_hub_url(file.repository, file.filename)
    remote = hub.get_hf_file_metadata(url)
    if remote.etag is None or remote.size is None:
        raise ModelError(f"{url} does not say what it serves; check HF_ENDPOINT and the proxy.")
    _check_tag(file, remote.etag)
    part = folder / f"{file.filename}.{re.sub(r'[^0-9A-Za-z]', '', remote.etag)[:16]}.part"
    done = _resumable(part, remote.size)
    left, free = remote.size - done, shutil.disk_usage(folder).free
    if left > free:
        why = f"{left / 1e9:.1f} GB needed, {free / 1e9:.1f} free"
        raise OSError(errno.ENOSPC, why)
    with part.open("ab") as output:
        http_get(
            url,
            output,
            resume_size=done,
            headers=hub.utils.build_hf_headers(),
            expected_size=remote.size,
            displayed_filename=file.filename,
        )
    return part, remote.etag


def _resumable(part: Path, size: int) -> int:
    """Bytes of `part` to keep, of `size` in all; parts of other versions are removed."""
    for other in part.parent.glob(part.name.rsplit(".", 2)[0] + ".*.part"):
        if other != part or other.stat().st_size > size:
            other.unlink()
    return part.stat().st_size if part.exists() else 0


def _check_tag(file: WeightsFile, tag: str) -> None:
    """Refuse before gigabytes are fetched if the hub's tag is a sha256 and not the known one."""
    expected = expected_hash(file)
    if expected and SHA256.fullmatch(tag) and tag != expected:
        raise ModelError(
            f"The hub now serves another {file.address} (sha256 {tag[:12]}...) than the known "
            f"one ({expected[:12]}...). "
            + ("Update vr-trt." if file.sha256 else f"To take it, delete {hashes_file()}.")
        )


def _settle(file: WeightsFile, part: Path, target: Path, tag: str) -> None:
    """Give the finished `part` its name if its content is right; remove it if not."""
    found = hash_file(part)
    try:
        if SHA256.fullmatch(tag) and found != tag:
            raise ModelError(
                f"{file.filename} arrived damaged (its sha256 is not the hub's); run "
                f"`vr-trt weights pull {file.name}` again."
            )
        check_hash(file, part, found)
    except ModelError:
        part.unlink()  # continuing it would not mend it
        raise
    os.replace(part, target)
    remember_hash(target, found)


@contextmanager
def _alone(file: WeightsFile, folder: Path) -> Iterator[None]:
    """Keep other processes from continuing the same part."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / f".{file.filename}.lock", timeout=0):
            yield
    except Timeout as error:
        raise UsageError(
            f"Another process is downloading {file.filename} to {folder}; wait for it."
        ) from error


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModelError(
            "Downloading weights needs huggingface_hub: pip install 'vr-trt[export]'."
        ) from error
    return huggingface_hub


@contextmanager
def _explained(file: WeightsFile, folder: Path, hub: ModuleType) -> Iterator[None]:
    """Turn what the hub's client and the disk raise into errors of one line."""
    errors = hub.errors
    again = f"then run `vr-trt weights pull {file.name}` again: it continues where it stopped"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"The repository {file.repository} is gated: accept its terms on huggingface.co and "
            f"log in with `hf auth login`, {again}."
        ) from error
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError) as error:
        raise ModelError(
            f"The hub has no {file.address} (renamed, removed or private); put the file into "
            f"{folder} yourself."
        ) from error
    except errors.HTTPError as error:  # of httpx, which also carries the hub's own
        raise ModelError(
            f"Downloading {file.address} failed ({_first_line(error)}); check the network, {again}."
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise UsageError(
                f"{folder} is full while {file.filename} is downloaded ({error.strerror}); make "
                f"room or choose another folder with VR_TRT_WEIGHTS, {again}."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UsageError(
                f"{folder} cannot be written ({error.strerror}); choose another folder with "
                "VR_TRT_WEIGHTS."
            ) from error
        raise ModelError(
            f"Downloading {file.address} failed ({_first_line(error)}); check the network, {again}."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
