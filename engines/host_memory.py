"""How much memory the machine, or the container that this runs in, can still give."""

import os
from pathlib import Path

_V2, _V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
_CGROUPS = (  # limit, use, and what the use consists of
    (_V2 / "memory.max", _V2 / "memory.current", _V2 / "memory.stat"),
    (_V1 / "memory.limit_in_bytes", _V1 / "memory.usage_in_bytes", _V1 / "memory.stat"),
)
# Cached pages of files: they count as used, and the kernel gives them up when memory is short.
_CACHED = ("inactive_file", "active_file")


def available_bytes() -> int | None:
    """Memory that this process may still take: the machine's, or its container's if that is less.

    None where the system does not tell.
    """
    told = (_machine_available(), *_container_available())
    return min((value for value in told if value is not None), default=None)


def _machine_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _free_pages()
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _free_pages()


def _free_pages() -> int | None:
    """Not Linux: half of the machine's memory, where the system tells that."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _container_available() -> list[int | None]:
    return [_left(*files) for files in _CGROUPS]


def _left(limit: Path, used: Path, stat: Path) -> int | None:
    try:
        left = int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # not mounted here, or "max": no limit
        return None
    return max(0, left + _cached(stat))


def _cached(stat: Path) -> int:
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(_CACHED))
