"""What TensorRT measured of kernels in earlier builds, kept so that the next build need not.

One file per library version and GPU, below the cache folder. It is editable: a kernel's entry may
be pinned by hand. A file that does not fit, or cannot be read or written, costs time and nothing
else.
"""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.local_gpu import Gpu
from vr_trt.engines.store import cache_folder

if TYPE_CHECKING:
    import tensorrt as trt


def timing_cache_path(version: str, gpu: Gpu) -> Path:
    """Where the timings of this library on this GPU are kept."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{gpu.name} {gpu.multiprocessors}".lower()).strip("-")
    return cache_folder() / "timing" / f"tensorrt-{version}-{words}.cache"


def load_timings(config: "trt.IBuilderConfig", path: Path) -> int:
    """Give `config` the timings in `path`; returns their bytes, 0 where it starts empty."""
    if content := _read(path):
        timings = config.create_timing_cache(content)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            return len(content)
        print(f"{path} does not fit this library and GPU: measuring anew", file=sys.stderr)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return 0


def save_timings(config: "trt.IBuilderConfig", path: Path) -> int:
    """Add what this build measured to `path`, in one step; returns the bytes, 0 if it cannot."""
    timings = config.get_timing_cache()
    if timings is None:
        return 0
    # Another build may have finished meanwhile: its timings are kept.
    if (others := _read(path)) and (found := config.create_timing_cache(others)) is not None:
        timings.combine(found, ignore_mismatch=False)
    content = bytes(timings.serialize())
    unfinished = path.with_name(f".{path.name}~{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        print(f"timings are not kept: {path}: {error.strerror}", file=sys.stderr)
        with suppress(OSError):
            unfinished.unlink()
        return 0
    return len(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
