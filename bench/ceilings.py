"""What the chip can do at most, measured here and today: a large matrix product, a large copy.

    python -m vr_trt.bench.ceilings cpu|cuda

On the CPU the product is in fp32 by NumPy's library or by PyTorch's, whichever is faster, on one
core and times the cores: all cores together would measure what else runs there. On a GPU it is in
bf16 by PyTorch. A process of its own: its threads and its memory disturb nobody.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import numpy as np

from vr_trt.runtime.onnxruntime_session import usable_cores

SIDE = 1024  # of the CPU's matrices
COPIED = 1 << 28  # bytes of the CPU's copy: far more than its caches hold
REPEATS = 8
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """Operations a second, and bytes a second that are read and written."""

    flops: float
    bytes: float
    how: str  # in words


@dataclass(frozen=True, kw_only=True, slots=True)
class StageWork:
    """What one call of a stage has to compute and to move, whoever does it."""

    flops: int
    bytes: int

    def floor_seconds(self, ceilings: Ceilings) -> float:
        """No version runs in less on a chip of these ceilings."""
        return max(self.flops / ceilings.flops, self.bytes / ceilings.bytes)


def with_threads(cores: int) -> dict[str, str]:
    """The environment in which libraries use so many cores."""
    return os.environ | dict.fromkeys(THREADS, str(cores))


def measured(device: str) -> Ceilings | None:
    """The ceilings of `cpu` or `cuda`, by a fresh process; None where they cannot be measured."""
    command = [sys.executable, "-m", "vr_trt.bench.ceilings", device]
    done = subprocess.run(command, capture_output=True, text=True, env=with_threads(1), check=False)
    return Ceilings(**json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def of_cpu() -> Ceilings:
    """fp32."""
    products = {"NumPy": _numpy_product}
    if find_spec("torch"):
        products["PyTorch"] = _torch_product
    seconds = {name: make() for name, make in products.items()}
    best = min(seconds, key=lambda name: seconds[name])
    cores = usable_cores()
    return Ceilings(
        flops=cores * 2 * SIDE**3 / seconds[best],
        bytes=2 * COPIED / min(_copy(1), _copy(cores)),
        how=f"fp32 product of {SIDE} x {SIDE} by {best} on one core, times {cores}; copy of "
        f"{COPIED >> 20} MiB",
    )


def of_gpu() -> Ceilings:
    """bf16."""
    from vr_trt.bench.timing import bf16_tflops, copy_gbps

    return Ceilings(
        flops=bf16_tflops("cuda") * 1e12,
        bytes=copy_gbps("cuda") * 1e9,
        how="bf16 product of 8192 x 8192 and copy of 2 GiB by PyTorch",
    )


def _copy(threads: int) -> float:
    """Seconds of a copy by so many threads: NumPy lets them run at the same time."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return _fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _numpy_product() -> float:
    a = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    return _fastest(lambda: a @ a)


def _torch_product() -> float:
    import torch

    a = torch.rand(SIDE, SIDE)
    return _fastest(lambda: a @ a)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls, after one to warm up: a ceiling is what is possible."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    print(json.dumps(asdict(of_gpu() if sys.argv[1] == "cuda" else of_cpu())))
