"""What the GPU's driver counts while something runs: how busy, how full, how much energy.

By NVIDIA's `nvidia-ml-py` if it is installed; never executed on a GPU so far, only on a stand-in.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

INTERVAL = 0.02  # seconds between samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The counters at one moment."""

    at: float  # time.monotonic()
    busy: float  # 0..1, by the driver's own short average
    used: int  # bytes
    joules: float | None  # since the driver was loaded; None where the chip does not count


def library() -> Any | None:
    """NVML, ready to be asked; None where it or a GPU is missing."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError:
        return None


class Watch:
    """Samples the first GPU in a thread while the block runs; none where there is no NVML."""

    def __init__(self, nvml: Any | None) -> None:
        self.samples: list[Sample] = []
        self._nvml = nvml
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0) if nvml else None

    def __enter__(self) -> Self:
        if self._nvml:
            self.samples.append(self._sample())  # before the work: what others use
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._nvml:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        nvml: Any = self._nvml
        try:
            joules = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except nvml.NVMLError:
            joules = None
        return Sample(
            at=time.monotonic(),
            busy=nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100,
            used=nvml.nvmlDeviceGetMemoryInfo(self._handle).used,
            joules=joules,
        )


def device_use(
    samples: Sequence[Sample], window: tuple[float, float], frames: int
) -> dict[str, float]:
    """`peak_device_mib` over all samples; `gpu_busy` and `joules_per_frame` within the window."""
    if not samples:
        return {}
    use = {"peak_device_mib": (max(s.used for s in samples) - samples[0].used) / 2**20}
    within = [s for s in samples if window[0] <= s.at <= window[1]]
    if len(within) < 2:
        return use
    use["gpu_busy"] = sum(s.busy for s in within) / len(within)
    first, last = within[0], within[-1]
    if first.joules is not None and last.joules is not None:
        share = (last.at - first.at) / (window[1] - window[0])
        use["joules_per_frame"] = (last.joules - first.joules) / share / frames
    return use
