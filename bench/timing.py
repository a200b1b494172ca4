"""Times of device work by CUDA events: medians, with a cold cache and a full queue.

Between repeats the second-level cache is overwritten, so that no input lies there already, and the
device is kept busy while the host enqueues, so that what is timed is the device's work and not the
host's. Without a GPU the wall clock serves, to try the harness out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch

_CYCLES_PER_MS = 2_000_000  # about: a pause may be longer than asked for
_LONGEST_PAUSE_MS = 50.0
_FLUSH_L2 = 4  # times the size of the cache
_LEAST_FLUSH = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Milliseconds on the device, and what a call costs the host."""

    ms: float  # median
    p20: float
    p80: float
    repeats: int
    host_ms: float  # from call to return; the launches' price where nothing waits


def measure(call: Callable[[], Any], device: str, seconds: float = 0.4) -> Timing:
    """Time `call` repeatedly for about `seconds`: 5 to 200 repeats, after two to warm up."""
    call()
    _wait(device)
    start = time.perf_counter()
    call()
    host_ms = (time.perf_counter() - start) * 1e3
    _wait(device)
    once_ms = (time.perf_counter() - start) * 1e3
    repeats = int(max(5, min(200, seconds * 1e3 / max(once_ms, 1e-3))))
    if device != "cuda":
        times = [_clocked(call) for _ in range(repeats)]
    else:
        times = _events(call, repeats, min(1.5 * host_ms, _LONGEST_PAUSE_MS))
    fifths = quantiles(times, n=5)
    return Timing(ms=median(times), p20=fifths[0], p80=fifths[-1], repeats=repeats, host_ms=host_ms)


def _clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _events(call: Callable[[], Any], repeats: int, pause_ms: float) -> list[float]:
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    flush = torch.empty(max(_FLUSH_L2 * cache, _LEAST_FLUSH), dtype=torch.int8, device="cuda")
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(repeats)
    ]
    for start, end in pairs:
        flush.zero_()
        torch.cuda._sleep(int(pause_ms * _CYCLES_PER_MS))
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bf16_tflops(device: str) -> float:
    """TFLOP/s of a bf16 matrix product of random numbers, 8192 on a side."""
    size = 8192 if device == "cuda" else 128
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / measure(lambda: a @ b, device, 0.3).ms / 1e9


def fp8_tflops(device: str) -> float:
    """TFLOP/s of an E4M3 product through PyTorch, 8192 on a side, one scale an operand.

    A ceiling is the fastest there is, so sums are the fast ones, of fewer bits on sm_90.
    """
    size = 8192 if device == "cuda" else 32
    one = torch.ones((), device=device)
    a, b = (torch.randn(size, size, device=device).to(torch.float8_e4m3fn) for _ in range(2))

    def product() -> Any:
        return torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    return 2 * size**3 / measure(product, device, 0.3).ms / 1e9


def copy_gbps(device: str) -> float:
    """GB/s of a copy of 2 GiB on the device, bytes read and written."""
    size = 2 << 30 if device == "cuda" else 1 << 20
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * size / measure(lambda: target.copy_(source), device, 0.3).ms / 1e6


CEILINGS: dict[str, Callable[[str], float]] = {
    "bf16_tflops": bf16_tflops,
    "copy_gbps": copy_gbps,
    "fp8_tflops": fp8_tflops,
}
