"""What is made of the driver's counters, on a stand-in: no GPU has run it."""

from types import SimpleNamespace
from typing import Any

import pytest

from vr_trt.bench.nvml import Sample, Watch, device_use


class StandIn:
    """A GPU that is half busy, holds more at every look, and uses 100 W."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts_energy: bool = True) -> None:
        self.looks = 0
        self.counts_energy = counts_energy

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts_energy:
            raise self.NVMLError
        return 1000 * self.looks  # mJ

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self.looks += 1
        return SimpleNamespace(used=self.looks << 20)


@pytest.mark.parametrize("counts_energy", [True, False])
def test_the_first_sample_is_taken_before_the_work(counts_energy: bool) -> None:
    with Watch(StandIn(counts_energy)) as watch:
        assert len(watch.samples) >= 1 and watch.samples[0].used == 1 << 20
    first = watch.samples[0]
    assert first.busy == 0.5 and (first.joules is not None) == counts_energy


def test_without_a_gpu_there_is_nothing() -> None:
    with Watch(None) as watch:
        pass
    assert device_use(watch.samples, (0.0, 1.0), 10) == {}


def test_only_the_steady_pass_counts_but_for_the_memory() -> None:
    samples = [
        Sample(at=at, busy=busy, used=used << 20, joules=joules)
        for at, busy, used, joules in (
            (0, 0.0, 100, 0),
            (1, 0.9, 900, 500),  # the cold pass
            (2, 0.4, 500, 1000),
            (3, 0.6, 600, 1100),
            (4, 0.0, 100, 9999),
        )
    ]
    use = device_use(samples, (2.0, 3.5), 10)
    assert use["peak_device_mib"] == 800
    assert use["gpu_busy"] == pytest.approx(0.5)
    assert use["joules_per_frame"] == pytest.approx(100 * 1.5 / 10)


def test_too_few_samples_say_nothing_of_a_pass() -> None:
    sample = Sample(at=0.5, busy=1.0, used=0, joules=0.0)
    assert device_use([sample], (0.0, 1.0), 1) == {"peak_device_mib": 0.0}
