"""Plans of the VAE, run in a process of its own, see `tests.kernel_runs`."""

from pathlib import Path

import pytest
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

RUNS = Path(__file__).with_name("run_triton_plans.py")


def test_built_and_opened_again_pictures_equal_pytorch_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=2)


@pytest.mark.slow
def test_built_and_opened_again_shots_equal_pytorch_in_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-m slow")
    run(RUNS, "cpu", at_least=2)


@pytest.mark.gpu
def test_built_and_opened_again_the_vae_equals_pytorch_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-m 'slow or not slow'")
    run(RUNS, "cuda", at_least=4)
