"""The GPU that a measurement was taken on, and whether one is here at all."""

import subprocess
from typing import Any

_ASKED = "driver_version,power.limit,clocks.max.sm,clocks.sm,clocks.mem,temperature.gpu"


def why_no_gpu(small: bool = False) -> str | None:
    """None, or in one line what the kernels' benchmark lacks here, and how to get it.

    A `small` one, in Triton's interpreter, needs no GPU.
    """
    try:
        import torch
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        return f"kernels need {error.name}, which is not installed: pip install 'vr-trt[gpu]'"
    if not small and not torch.cuda.is_available():
        return "no CUDA GPU is here: measure on a machine with one, or try the harness with --small"
    return None


def describe_gpu(device: str) -> dict[str, Any]:
    """Name, capability, sizes; driver, power limit and clocks as the vendor's tool reads them."""
    if device != "cuda":
        return {"name": "none: Triton's interpreter on the CPU"}
    import torch

    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_mib": found.total_memory >> 20,
        "l2_mib": found.L2_cache_size >> 20,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **_from_the_vendors_tool(),
    }


def _from_the_vendors_tool() -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):  # not everywhere, and not needed
        return {}
    values = (value.strip() for value in done.stdout.split(","))
    return dict(zip(_ASKED.split(","), values, strict=False))
