"""Checkpoints that `torch.save` wrote, in its zip form or the older one: where each tensor lies.

Both go through PyTorch's unpickler for weights, which executes nothing of the file, and give
tensors without data (on the meta device). Of a zip, where PyTorch says that a storage lies is
checked against the archive itself: a file that another program packed again lies. The older form
is read here, because `torch.load` would hold all of it in memory, and the 7B's has 33 GB.
"""

import os
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch._weights_only_unpickler import Unpickler
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from vr_trt.errors import ModelError
from vr_trt.export.extent import REMEDY, Extent, read_extent

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"  # of the older form, and of any other pickle of protocol 2 or newer
COUNT = struct.Struct("<q")  # of the older form: elements of a storage, before its data
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of name and extra
WRAPPERS = ("state_dict", "model", "ema")
# What the unpickler and the archive reader raise on malformed input. Unpickling has no closed
# list; a fuzz test holds this one.
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
FORBIDDEN = (
    re.compile(r"GLOBAL (\S+) was not an allowed global"),
    re.compile(r"unsupported GLOBAL (\S+)"),
)


def read_zip_index(path: Path) -> tuple[dict[str, Extent], str]:
    """Where each tensor of a zip-form file lies, and a note where it was nested ("" if not).

    Raises ModelError if the file is damaged, foreign, or wants more than tensors.
    """
    records = _records(path)
    tensors, note = state_dict_of(path, _load(path))
    return {name: _extent(path, name, tensors[name], records) for name in tensors}, note


def read_legacy_index(path: Path) -> tuple[dict[str, Extent], str]:
    """Where each tensor of a file in the form before PyTorch 1.6 lies; note and errors as above."""
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # not the user's
            loaded, records = _read_legacy(file)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    tensors, note = state_dict_of(path, loaded)
    return {name: _extent(path, name, tensors[name], records) for name in tensors}, note


def read_single(path: Path) -> torch.Tensor:
    """The one tensor of a zip-form file that holds no more; ModelError as above."""
    records = _records(path)
    loaded = _load(path)
    if not isinstance(loaded, torch.Tensor):
        raise ModelError(f"{path} holds a {type(loaded).__name__}, not one tensor; {REMEDY}.")
    return read_extent(path, _extent(path, "its tensor", loaded, records))


def _load(path: Path) -> Any:
    """What a zip-form file holds, tensors without their data."""
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # not the user's
            return torch.load(file, map_location="meta", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read_legacy(file: IO[bytes]) -> tuple[Any, dict[int, int]]:
    """What a file of the older form holds, and offset and size of the data of its storages.

    Five pickles in a row: two numbers, the machine, the tensors, and the storages' keys. Then for
    each key the number of elements and the data.
    """

    def unpickled() -> Any:
        return Unpickler(file, encoding="utf-8").load()

    if unpickled() != MAGIC_NUMBER or unpickled() != PROTOCOL_VERSION:
        raise ValueError("not written by torch.save")
    if not unpickled()["little_endian"]:
        raise ValueError("written on a big-endian machine")
    storages: dict[str, torch.UntypedStorage] = {}
    counts: dict[str, int] = {}

    def storage_of(saved: tuple[Any, ...]) -> torch.TypedStorage:
        _, kind, key, _, count, part = saved
        if part is not None:
            raise ValueError("a storage that is a part of another")
        if key not in storages:
            counts[key] = count
            storages[key] = torch.UntypedStorage(count * kind.dtype.itemsize, device="meta")
        return torch.TypedStorage(wrap_storage=storages[key], dtype=kind.dtype, _internal=True)

    unpickler = Unpickler(file, encoding="utf-8")
    unpickler.persistent_load = storage_of  # type: ignore[method-assign]  # as torch.load does
    loaded = unpickler.load()
    records: dict[int, int] = {}
    for key in unpickled():
        if COUNT.unpack(file.read(COUNT.size)) != (counts[key],):
            raise ValueError(f"storage {key} is not where it should be")
        storages[key]._checkpoint_offset = file.tell()  # as torch.load does for a zip
        records[file.tell()] = storages[key].nbytes()
        if file.seek(storages[key].nbytes(), os.SEEK_CUR) > os.fstat(file.fileno()).st_size:
            raise EOFError("ends within a storage")
    return loaded, records


def state_dict_of(path: Path, loaded: Any) -> tuple[dict[str, torch.Tensor], str]:
    """The flat state dict in what `torch.load` gave, unwrapped from one known key at most."""
    note = ""
    if isinstance(loaded, dict) and len(loaded) == 1:
        (key,) = loaded
        if key in WRAPPERS and isinstance(loaded[key], dict):
            loaded, note = loaded[key], f'the state dict was found under "{key}"'
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} holds a {type(loaded).__name__}, not a state dict; {REMEDY}.")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise ModelError(f"{path} is no flat state dict: {key!r} is a {kind}; {REMEDY}.")
        if value.layout != torch.strided or value.is_quantized:
            raise ModelError(f"{path} stores {key} sparse or quantised; {REMEDY}.")
    return loaded, note


def _records(path: Path) -> dict[int, int]:
    """Offset and size of every member of the archive, which must be one that `torch.save` wrote."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = archive.infolist()
            names = [member.filename for member in members]
            pickles = [name for name in names if name.endswith("/data.pkl")]
            scripted = any(name.endswith("/constants.pkl") for name in names)
            if len(pickles) != 1 or scripted:
                raise ModelError(f"{path} is a zip archive, but no checkpoint; {REMEDY}.")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ModelError(f"{path} is a compressed archive, not a checkpoint; {REMEDY}.")
            order = pickles[0].removesuffix("data.pkl") + "byteorder"
            if order in names and archive.read(order) != b"little":
                raise ModelError(f"{path} was written on a big-endian machine; {REMEDY}.")
            return {_data_offset(file, member): member.file_size for member in members}
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset)
    signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    if signature != ZIP_MAGIC:
        raise zipfile.BadZipFile(f"no member where {member.filename} should be")
    return member.header_offset + LOCAL_HEADER.size + int(name) + int(extra)


def _extent(path: Path, name: str, tensor: torch.Tensor, records: dict[int, int]) -> Extent:
    storage = tensor.untyped_storage()
    start = storage._checkpoint_offset  # set by torch.load on the meta device
    if start is None or records.get(start) != storage.nbytes():
        raise ModelError(
            f"{path} has no data for {name} where torch.save puts it: the archive is damaged or "
            f"was packed again; {REMEDY}."
        )
    extent = Extent(
        offset=start + int(tensor.storage_offset()) * tensor.dtype.itemsize,
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        stride=None if tensor.is_contiguous() else tensor.stride(),
    )
    if extent.offset + extent.nbytes > start + storage.nbytes():
        raise ModelError(f"{path} says that {name} is larger than its storage; {REMEDY}.")
    return extent


def _unreadable(path: Path, error: BaseException) -> ModelError:
    text = str(error)
    for pattern in FORBIDDEN:
        if found := pattern.search(text):
            return ModelError(
                f"{path} is refused: besides tensors it wants {found[1]}; nothing of it was "
                f"executed; {REMEDY}."
            )
    # torch.load's own advice, to switch its safety off, is not passed on.
    inner = text.rpartition("WeightsUnpickler error:")[2].strip()
    why = inner.partition("\n")[0][:120] or type(error).__name__
    return ModelError(f"{path} is truncated, damaged or no checkpoint ({why}); {REMEDY}.")
