"""The GPU of this machine, asked of its driver: no package is needed."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

_LIBRARY = "libcuda.so.1"
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute
_NAME_BYTES = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A device that the driver offers to this process."""

    name: str
    sm: int  # compute capability as 89
    multiprocessors: int
    memory: int  # bytes
    driver: int  # the newest CUDA that it serves, as 13000


@cache
def present_gpu() -> Gpu | None:
    """The GPU, or None where there is no driver or no device."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return ask_driver(driver)


def gpu_number(number: int) -> Gpu | None:
    """The GPU of that number, counted from 0 as the driver does; None where there is none."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return ask_driver(driver, number)


def ask_driver(driver: Any, number: int = 0) -> Gpu | None:
    """A device of a loaded CUDA driver library; None where it has no such one."""
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    if number >= count.value or driver.cuDeviceGet(ctypes.byref(device), number):
        return None

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        failed = driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return 0 if failed else value.value

    name, memory, version = (
        ctypes.create_string_buffer(_NAME_BYTES),
        ctypes.c_size_t(),
        ctypes.c_int(),
    )
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return Gpu(
        name=name.value.decode(),
        sm=10 * attribute(_MAJOR) + attribute(_MINOR),
        multiprocessors=attribute(_MULTIPROCESSORS),
        memory=memory.value,
        driver=version.value,
    )
