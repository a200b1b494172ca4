"""Builds that crash, hang or are killed: one line each, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.engine_graphs import add_misbehaving_builder, make_spec

from vr_trt.engines.build_process import build_in_process
from vr_trt.engines.builder import LOG, PLAN
from vr_trt.engines.child import Moment
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import MemoryBudgetError, ModelError


@pytest.fixture(autouse=True)
def misbehaving(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = add_misbehaving_builder(tmp_path_factory.mktemp("builder"))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def spec_that(does: str) -> EngineSpec:
    return make_spec(backend="triton", targets=(89,), flags={"do": does})


def test_what_was_built_is_told(tmp_path: Path) -> None:
    moments: list[Moment] = []
    built = build_in_process(spec_that("build"), tmp_path / "x.onnx", tmp_path, moments.append)
    assert built.report.facts == {"made": "by a test"} and built.seconds > 0
    assert built.peak_bytes > 5_000_000
    assert (tmp_path / PLAN).read_bytes() == b"plan"
    assert (tmp_path / LOG).read_text() == "about to build\n"
    assert any(moment.doing.startswith("build ") for moment in moments)


@pytest.mark.parametrize(
    ("does", "kind", "message"),
    [
        ("abort", ModelError, r"triton crashed .* generator \(SIGABRT\).*last words: .*abort"),
        ("kill", MemoryBudgetError, "generator for triton was killed, .* memory"),
        ("refuse", ModelError, "^no such operator$"),
    ],
)
def test_what_goes_wrong_is_one_line(
    tmp_path: Path, does: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        build_in_process(spec_that(does), tmp_path / "x.onnx", tmp_path, lambda moment: None)


def test_an_interrupt_ends_the_build(tmp_path: Path) -> None:
    children: list[int] = []

    def interrupt(moment: Moment) -> None:
        if moment.doing.startswith("hang"):
            children.append(int(moment.doing.split()[1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_in_process(spec_that("hang"), tmp_path / "x.onnx", tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_a_build_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from vr_trt.engines.build_process import build_in_process\n"
        "from vr_trt.engines.spec import EngineSpec\n"
        f"spec = EngineSpec.from_json({spec_that('hang').as_json()!r})\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "build_in_process(spec, folder, folder, lambda m: print(m.doing, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = next(int(line.split()[1]) for line in process.stdout if line.startswith("hang"))
        process.send_signal(signal.SIGKILL)
    assert is_gone(child)


def is_gone(process: int) -> bool:
    """True when it ends within ten seconds; a zombie that nobody reaps has ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False
