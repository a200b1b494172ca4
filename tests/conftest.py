"""What every test may rely on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.small import sitecustomize

from vr_trt.engines import profiles

# A shell that starts the tests in the background has interrupts ignored, and children inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `gpu` wants a CUDA device; without one it is skipped, or fails if so asked."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        required = os.environ.get("VR_TRT_REQUIRE_GPU") == "1"
        (pytest.fail if required else pytest.skip)("there is no CUDA device")


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """What answers signals is put back: the command line's `main` leaves it to the system."""
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in endings}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def small_pictures() -> Iterator[None]:
    """360p is 120 pixels high, here and in every process that is started: a third of the time."""
    here = [str(Path(sitecustomize.__file__).parent), os.environ.get("PYTHONPATH", "")]
    small = sitecustomize.thirds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
        patch.setattr(profiles, "load_profiles", lambda: small)
        yield
