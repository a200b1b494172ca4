"""The generator in fp8 on our kernels: run in a process of its own, see `tests.kernel_runs`."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

RUNS = Path(__file__).with_name("run_triton_generator_fp8.py")


def test_fp8_equals_its_emulation_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=7)


@pytest.mark.gpu
def test_fp8_equals_its_emulation_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=7)
