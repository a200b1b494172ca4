"""What a measurement was taken on: written beside every figure."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import vr_trt

PACKAGES = ("av", "numpy", "onnxruntime", "torch", "triton", "tensorrt-rtx", "tensorrt")


def describe() -> dict[str, str | int | dict[str, str]]:
    """Processor, cores, memory, versions and commit."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "memory_gib": round(_memory_bytes() / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "vr_trt": vr_trt.__version__,
        "commit": _commit(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def command_line() -> str:
    """The running `python -m vr_trt.bench.…`; of files and folders the names alone."""
    program, *words = (Path(word) for word in sys.argv)
    return " ".join([f"python -m vr_trt.bench.{program.stem}", *(word.name for word in words)])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cores() -> int:
    # As the runtime counts them, which is not asked: where kernels are measured it may be missing.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of the checkout, with a + if it has changes; outside of one VR_TRT_COMMIT, if any."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        return os.environ.get("VR_TRT_COMMIT", "")
    return commit.stdout.strip()
