"""The pixel sessions of the triton backend: run in a process of their own, see kernel_runs."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

RUNS = Path(__file__).with_name("run_triton_pixels.py")


def test_they_give_what_the_graphs_give_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=40)


@pytest.mark.gpu
def test_they_give_what_the_graphs_give_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=40)
