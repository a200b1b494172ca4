"""The GPU as its driver describes it, asked of a stand-in for the driver."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from vr_trt.engines import local_gpu
from vr_trt.engines.local_gpu import Gpu, ask_driver


class Driver:
    """Answers like libcuda, which writes through pointers and returns 0 where all is well."""

    def __init__(self, *, devices: int = 1, fails: str = "") -> None:
        self.devices, self.fails = devices, fails

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name == self.fails:
                return 100
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H100"
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {16: 132, 75: 9, 76: 0}[arguments[1]]
            elif name != "cuInit":
                answers = {"cuDeviceGetCount": self.devices, "cuDeviceGet": 0}
                answers |= {"cuDeviceTotalMem_v2": 80 << 30, "cuDriverGetVersion": 13000}
                arguments[0]._obj.value = answers[name]
            return 0

        return call


def test_the_first_device_is_described() -> None:
    wanted = Gpu(name="NVIDIA H100", sm=90, multiprocessors=132, memory=80 << 30, driver=13000)
    assert ask_driver(Driver()) == wanted


@pytest.mark.parametrize(
    "driver",
    [
        Driver(devices=0),
        Driver(fails="cuInit"),
        Driver(fails="cuDeviceGetCount"),
        Driver(fails="cuDeviceGet"),
    ],
)
def test_without_a_device_there_is_none(driver: Driver) -> None:
    assert ask_driver(driver) is None


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    local_gpu.present_gpu.cache_clear()
    assert local_gpu.present_gpu() is None
    local_gpu.present_gpu.cache_clear()
