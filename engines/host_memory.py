"""How much memory the machine, or the container that this runs in, can still give."""

import os
from pathlib import Path

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available_bytes() -> int | None:
    """Memory that this process may still take: the machine's, or its container's if that is less.

    None where the system does not tell.
    """
    found = [
        value for value in (_machine_available(), *_container_available()) if value is not None
    ]
    return min(found, default=None)


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
    return [_difference(Path(limit), Path(used)) for limit, used in _CGROUPS]


def _difference(limit: Path, used: Path) -> int | None:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # not mounted here, or "max": no limit
        return None
