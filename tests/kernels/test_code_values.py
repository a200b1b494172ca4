"""The kernels of code values, run by the interpreter; what ships of them: test_between."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton")

RUNS = Path(__file__).with_name("run_code_values.py")


def test_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=15)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=15)
