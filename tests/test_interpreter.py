"""The corrections of the interpreter, in a process of its own, see `tests.kernel_runs`."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")


def test_narrow_floats_are_those_of_pytorch() -> None:
    run(Path(__file__).with_name("run_interpreter.py"), "cpu", at_least=21)
