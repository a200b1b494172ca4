"""A digest that tells one input from another without reading all of it."""

import hashlib
from pathlib import Path

_PART = 1 << 20


def input_digest(path: Path) -> str:
    """A hash of a file's size and of a mebibyte each at its start, in its middle and at its end.

    Of a folder, the names and sizes of what is in it; of standard input, nothing.
    """
    if path.is_dir():
        names = sorted(f"{file.name} {file.stat().st_size}" for file in path.iterdir())
        return hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()
    if not path.exists():
        return str(path)
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for start in (0, max(0, size // 2 - _PART // 2), max(0, size - _PART)):
            file.seek(start)
            digest.update(file.read(_PART))
    return digest.hexdigest()
