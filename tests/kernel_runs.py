"""Tests of one kernel, run on the CPU by Triton's interpreter, or on a GPU: the same file for both.

A kernel `k` has `tests/kernels/run_k.py`, which pytest does not collect by itself: whether Triton
interprets or compiles is decided when a kernel is defined, so it runs in a process of its own.
`test_k.py` starts it, once as it is and once marked `gpu`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

# What the process started by `run` works on.
DEVICE = os.environ.get("VR_TRT_KERNELS_ON", "cpu")
if os.environ.get("TRITON_INTERPRET") == "1":  # on a GPU's machine nothing but torch need be there
    from tests.interpreter import narrow_floats

    narrow_floats()
torch.backends.cudnn.allow_tf32 = False  # what we compare with is no coarser than what it says
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *HALVES)


def run(path: Path, device: str, at_least: int) -> None:
    """Run the tests in `path`; all must pass, none be skipped, and `at_least` so many there be."""
    # Plugins that these tests do not use take as long to import as some of them to run.
    without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")
    command = [sys.executable, "-m", "pytest", "-q", *without, str(path)]
    environment = {**os.environ, "VR_TRT_KERNELS_ON": device}
    environment["TRITON_INTERPRET"] = "0" if device == "cuda" else "1"
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= at_least and "skipped" not in done.stdout, done.stdout


def poisoned(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of NaN on the device: an output of which every element must be written."""
    return torch.full(shape, torch.nan, device=DEVICE).to(dtype)


def error_ratio(ours: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> float:
    """How much farther from `exact` we are than a plain run in the same dtype is, in rms.

    Where the plain run is nearer than half a step of the dtype, half a step counts.
    """
    assert ours.shape == plain.shape == exact.shape and not ours.isnan().any()
    wide = exact.double()
    mine, other = ((x.double() - wide).square().mean().sqrt() for x in (ours, plain))
    half_step = wide.square().mean().sqrt() * torch.finfo(ours.dtype).eps / 2
    return float(mine / torch.maximum(other, half_step).clamp_min(1e-30))
