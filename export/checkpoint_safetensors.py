"""The index of a .safetensors file, checked: which tensor lies where.

The format: eight bytes with the header's length, a JSON header, then the tensors without gaps.
We read it ourselves because the library maps the whole file, and tells no offsets.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch

from vr_trt.errors import ModelError
from vr_trt.export.extent import REMEDY, Extent

LENGTH_BYTES = 8
HEADER_AT_MOST = 100_000_000  # the format's own limit
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file that begins with `start` (9 bytes or more) may be one."""
    return start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def read_safetensors_index(path: Path) -> dict[str, Extent]:
    """Where each tensor of `path` lies.

    Raises ModelError if the file is truncated or its header does not describe its content.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > HEADER_AT_MOST:
            raise _broken(path, f"claims a header of {length} bytes")
        if LENGTH_BYTES + length > size:
            raise _broken(path, f"is truncated: {size} bytes, and its header alone has {length}")
        header = _parse(path, file.read(length))
    start = LENGTH_BYTES + length
    extents = {
        name: _extent(path, name, entry, start)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    _check_layout(path, extents, start, size)
    return extents


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(path, "has no readable header") from error
    if not isinstance(header, dict):
        raise _broken(path, "has no readable header")
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _extent(path: Path, name: str, entry: Any, start: int) -> Extent:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(first), int(end)]}:
            pass
        case _:
            raise _broken(path, f"has a malformed entry for {name}")
    if dtype not in DTYPES:
        raise _broken(path, f"stores {name} as {dtype}, which we do not read")
    if not all(type(n) is int and n >= 0 for n in shape) or not 0 <= first <= end:
        raise _broken(path, f"has a malformed entry for {name}")
    if end - first != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _broken(path, f"has {end - first} bytes for {name}, {dtype} of shape {shape}")
    return Extent(offset=start + first, dtype=DTYPES[dtype], shape=tuple(shape))


def _check_layout(path: Path, extents: dict[str, Extent], start: int, size: int) -> None:
    reached = start
    for name, extent in sorted(extents.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if extent.offset != reached:
            raise _broken(path, f"has a gap or an overlap before {name}")
        reached += extent.nbytes
    if reached > size:
        raise _broken(path, f"is truncated: {size} bytes of the {reached} that its header promises")
    if reached < size:
        raise _broken(path, f"holds {size - reached} bytes that its header does not mention")


def _broken(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} {what}; {REMEDY}.")
