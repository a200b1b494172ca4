"""The generator on our kernels: run in a process of its own, see `tests.kernel_runs`."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

RUNS = Path(__file__).with_name("run_triton_generator.py")


def test_the_generator_equals_pytorch_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=12)


@pytest.mark.gpu
def test_the_generator_equals_pytorch_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=5)
