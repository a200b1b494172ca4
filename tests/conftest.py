"""What every test may rely on."""

import os
import signal

import pytest

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
