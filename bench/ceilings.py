"""What the chip can do at most, measured here and today: a large matrix product, a large copy.

    python -m vr_trt.bench.ceilings cpu|cuda

On the CPU the product is in fp32 by NumPy's library or by PyTorch's, whichever is faster, on one
core and times the cores: all cores together would measure what else runs there. On a GPU it is in
bf16, and in fp8 where there is such, by PyTorch. It is a process of its own, whose threads and
memory disturb nobody.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec

import numpy as np

from vr_trt.bench.roofline import Ceilings, ceilings_from
from vr_trt.runtime.onnxruntime_session import usable_cores

SIDE = 1024  # of the CPU's matrices
COPIED = 1 << 28  # bytes of the CPU's copy: far more than its caches hold
REPEATS = 8
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


Found = tuple[Ceilings, str]  # and in words how they were measured


def with_threads(cores: int) -> dict[str, str]:
    """The environment in which libraries use so many cores."""
    return os.environ | dict.fromkeys(THREADS, str(cores))


def measured(device: str) -> Found | None:
    """The ceilings of `cpu` or `cuda`, by a fresh process; None where they cannot be measured."""
    command = [sys.executable, "-m", "vr_trt.bench.ceilings", device]
    done = subprocess.run(command, capture_output=True, text=True, env=with_threads(1), check=False)
    if done.returncode:
        return None
    ceilings, how = json.loads(done.stdout.splitlines()[-1])
    return Ceilings(**ceilings), how


def of_cpu() -> Found:
    """fp32."""
    products = {"NumPy": _numpy_product}
    if find_spec("torch"):
        products["PyTorch"] = _torch_product
    seconds = {name: make() for name, make in products.items()}
    best = min(seconds, key=lambda name: seconds[name])
    cores = usable_cores()
    ceilings = Ceilings(
        flops=cores * 2 * SIDE**3 / seconds[best],
        bytes=2 * COPIED / min(_copy(1), _copy(cores)),
    )
    return ceilings, (
        f"fp32 product of {SIDE} x {SIDE} by {best} on one core, times {cores}; copy of "
        f"{COPIED >> 20} MiB"
    )


def of_gpu() -> Found:
    """bf16, and fp8 where the chip has it."""
    import torch

    from vr_trt.bench.timing import CEILINGS

    has_fp8 = torch.cuda.get_device_capability() >= (8, 9)
    names = [name for name in CEILINGS if has_fp8 or name != "fp8_tflops"]
    ceilings = ceilings_from({name: CEILINGS[name]("cuda") for name in names})
    assert ceilings is not None
    kinds = "bf16 and fp8 products" if has_fp8 else "bf16 product"
    return ceilings, f"{kinds} of 8192 x 8192 and copy of 2 GiB by PyTorch"


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
    found, words = of_gpu() if sys.argv[1] == "cuda" else of_cpu()
    print(json.dumps((asdict(found), words)))
