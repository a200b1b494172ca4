"""The kernels' benchmark from end to end, small, in Triton's interpreter."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

import torch

from vr_trt.bench.case import MODULES, cases_of
from vr_trt.bench.gpu_parts import parts_document
from vr_trt.bench.kernel_report import line, overview, report
from vr_trt.bench.kernel_run import Session
from vr_trt.bench.kernels import SCHEMA, Request, Results, _measure, run
from vr_trt.cli import exit_code

ROOT = Path(__file__).parents[2]
ROW = {"error", "right", "ms", "p20", "p80", "repeats", "host_ms", "state", "tflops", "gbps"}
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    before = os.environ.get("TRITON_INTERPRET")
    measured = run(Request(out=out, seconds=120, small=True, modules=("glue", "frame_attention")))
    assert os.environ.get("TRITON_INTERPRET") == before  # the worker's alone
    assert json.loads((out / "kernels.json").read_text()) == measured
    return measured


def test_the_document(document: dict[str, Any]) -> None:
    assert document["schema"] == SCHEMA and document["right"] and document["small"]
    assert document["machine"]["packages"]["triton"] and document["seconds"] > 0
    assert set(document["ceilings"]) == {"bf16_tflops", "copy_gbps", "fp8_tflops"}
    assert all(value > 0 for value in document["ceilings"].values())
    assert document["problems"] == {}
    norm, *_, attention = document["cases"]
    assert norm["check"]["state"] == "ok" and norm["check"]["error"] < norm["limit"]
    assert list(attention["times"]) == ["ours", "PyTorch SDPA"]
    assert list(norm["times"]) == ["ours", "PyTorch"]
    for row in (*norm["times"].values(), *attention["times"].values()):
        assert set(row) == ROW | {"of_floor"}
        assert row["p20"] <= row["ms"] <= row["p80"] and row["repeats"] >= 5
    ours = norm["times"]["ours"]
    assert ours["gbps"] == pytest.approx(norm["bytes"] / ours["ms"] / 1e6)
    assert norm["floor_ms"] / ours["ms"] == pytest.approx(ours["of_floor"])


@pytest.mark.slow
def test_every_module_is_right_when_small(tmp_path: Path) -> None:
    measured = run(Request(out=tmp_path, seconds=900, small=True))
    states = [row["state"] for case in measured["cases"] for row in case["times"].values()]
    assert measured["right"] and not measured["problems"] and set(states) == {"ok"}


def test_the_report_names_every_case_and_way(document: dict[str, Any]) -> None:
    shown = report(document)
    for case in document["cases"]:
        assert case["name"] in shown and case["name"] in overview(document)
    assert "4 of 4 checks right; 8 of 8 timings done" in shown


def test_the_line_is_a_digest(document: dict[str, Any]) -> None:
    digest = json.loads(line(document))
    assert "\n" not in line(document) and digest["right"] and digest["ceilings"]
    norm = document["cases"][0]
    kept = dict(zip(digest["columns"], digest["cases"][norm["name"]], strict=True))
    assert kept["right"] == "ok" and kept["rival"] == "PyTorch"
    assert kept["ms"] == pytest.approx(norm["times"]["ours"]["ms"], abs=1e-4)
    assert kept["rival_ms"] == pytest.approx(norm["times"]["PyTorch"]["ms"], abs=1e-4)


def test_the_digest_of_all_cases_fits_where_outputs_are_cut() -> None:
    cases = [
        {**card, "check": {"state": "ok"}, "times": {"ours": ROWS, "cuDNN channels last": ROWS}}
        for module in MODULES
        for card in (case.card() for case in cases_of(module, small=False))
    ]
    document = {
        **dict.fromkeys(("schema", "right", "small", "seconds"), 1),
        **{key: {} for key in ("problems", "ceilings")},
        **{key: {"name": "?", "commit": "?"} for key in ("gpu", "machine")},
        "cases": cases,
    }
    assert len(overview(document)) + len(line(document)) < 12_000


ROWS = {"state": "ok", "ms": 123.4567, "tflops": 123.4, "of_floor": 0.123}
CARD = {"name": "a", "unit": "copy", "flops": 1.0, "bytes": 1e6, "ways": ["ours"], "seconds": 1}


def results(tmp_path: Path) -> Results:
    made = Results(path=tmp_path / "kernels.json", about={"gpu": {"name": "?"}})
    made.about["machine"] = {"commit": ""}
    made.add_card({**CARD, "kernel": "a", "importance": 0, "limit": 0.1, "timed": True})
    return made


@pytest.mark.parametrize("way", ["ours", "ours, by taps"])
@pytest.mark.parametrize("state", ["wrong", "failed"])
def test_a_wrong_or_failed_kernel_is_no_success(state: str, way: str, tmp_path: Path) -> None:
    made = results(tmp_path)
    assert not made.right  # nothing was checked
    made.add({"case": "a", "way": "ours", "do": "check"}, {"state": "ok", "error": 0.0})
    assert made.right
    made.add({"case": "a", "way": way, "do": "time"}, {"state": state, "why": "because"})
    assert not made.right
    assert f"{state}: because" in report(made.document())


def test_a_failed_ceiling_is_told_and_leaves_the_times(tmp_path: Path) -> None:
    made = results(tmp_path)
    made.add({"ceiling": "fp8_tflops"}, {"state": "failed", "why": "no such type"})
    made.add({"ceiling": "copy_gbps"}, {"state": "ok", "value": 1000.0})
    row = {"state": "ok", "ms": 2.0, "p20": 1.0, "p80": 3.0, "error": None}
    made.add({"case": "a", "way": "ours", "do": "time"}, row)
    shown = report(made.document())
    assert "PROBLEM fp8_tflops: no such type" in shown and "NaN" in shown
    assert "of_floor" not in made.cases["a"]["times"]["ours"]
    made.add({"ceiling": "bf16_tflops"}, {"state": "ok", "value": 100.0})
    made.add({"case": "a", "way": "ours", "do": "time"}, row)
    assert made.cases["a"]["times"]["ours"]["of_floor"] == pytest.approx(0.001 / 2)


def test_a_rival_that_fails_twice_is_left_alone(tmp_path: Path) -> None:
    tried = []

    class Failing(Session):
        def cards(self, modules: Sequence[str]) -> list[dict[str, Any]]:
            about = {**CARD, "kernel": "a", "importance": 0, "limit": 0.1, "timed": True}
            return [{**about, "name": f"a {i}", "ways": ["ours", "flash"]} for i in range(4)]

        def do(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
            tried.append(task)
            return {"state": "failed", "why": "no such kernel"}

    made = Results(path=tmp_path / "kernels.json", about={"gpu": {}, "machine": {}})
    _measure(Failing(command=list, log=tmp_path / "log", deadline=0.0), made, ("a",))
    ways = [task["way"] for task in tried if task.get("do") == "time"]
    assert ways.count("flash") == 2 and ways.count("ours") == 4
    last = made.cases["a 3"]["times"]["flash"]
    assert last == {"state": "not run", "why": "failed before: no such kernel"}


@no_gpu
def test_without_a_gpu_it_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["bench", "kernels"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no CUDA GPU is here" in said


def test_an_unknown_kernel_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["bench", "kernels", "teleport", "--small"]) == 2
    assert "there is no kernel teleport" in capsys.readouterr().err


STUB = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in *"import $LACKING"*) exit 1 ;; esac
echo '{"last": 1}'
"""
# A Python without pytest whose benchmark never ends.
HANGS = """#!/bin/sh
case "$*" in
  *"import pytest"* | *bench.warm) exit 1 ;;
  *gpu_parts*) exec {python} "$@" ;;
esac
echo "at work" >&2
exec sleep 60
"""


@pytest.mark.parametrize(
    ("lacking", "modules"), [("nothing", "wavelet to_video"), ("av", "wavelet vae"), ("av", "")]
)
def test_the_script_runs_the_tests_and_then_the_benchmark(
    tmp_path: Path, lacking: str, modules: str
) -> None:
    """Without PyAV the runtime's tests, whose conftest imports it, would end all of them."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {**os.environ, "PYTHON": str(stub), "CALLS": str(calls), "LACKING": lacking}
    out = tmp_path / "results"
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "on_gpu.sh"), str(out)],
        env={**environment, "BENCH_SECONDS": "33", "MODULES": modules},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == '{"last": 1}'
    *asked, tests, bench, parts = calls.read_text().splitlines()
    if modules != "wavelet to_video":  # the VAE's kernels are many
        tests, warm = asked.pop(), tests
        assert warm == "-m vr_trt.bench.warm"
    assert [line.split()[-1] for line in asked] == ["pytest", "xdist", "av"]
    folders = ["tests/kernels", "tests/engines"]
    if lacking != "av":  # not run_pyav_on_card, whose driver is a stand-in
        folders += [f"tests/runtime/run_triton_{name}.py" for name in ("loop", "pixels")]
    assert tests.endswith(" ".join(["--continue-on-collection-errors -n 12", *folders]))
    measured = f"-m vr_trt.bench.kernels --out {out} --seconds 33 {modules}"
    assert bench == measured.strip()
    assert parts == f"-m vr_trt.bench.gpu_parts {out} tests=0 bench=0"
    assert (out / "tests.log").read_text() == '{"last": 1}\n'


def test_the_script_ends_in_json_whatever_fails(tmp_path: Path) -> None:
    """No pytest, and a benchmark that hangs and is ended: that and its log are in the last line."""
    stub = tmp_path / "python"
    stub.write_text(HANGS.format(python=sys.executable))
    stub.chmod(0o755)
    out = tmp_path / "results"
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "on_gpu.sh"), str(out)],
        env={**os.environ, "PYTHON": str(stub), "BENCH_SECONDS": "-28"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and not last["right"] and last["kernels"] is None
    assert last["parts"] == {
        "tests": {"state": "absent"},
        "bench": {"state": "time was up", "code": "124", "log": ["at work"]},
    }


def test_the_parts_are_right_only_together(tmp_path: Path, document: dict[str, Any]) -> None:
    assert parts_document(tmp_path, ["tests=absent"])["right"] is False
    (tmp_path / "kernels.json").write_text(json.dumps(document))
    found = parts_document(tmp_path, ["tests=absent", "bench=0"])
    assert found["right"] and found["kernels"]["cases"].keys() == {
        case["name"] for case in document["cases"]
    }
    (tmp_path / "tests.log").write_text("one\ntwo\n\n3 failed\n")
    found = parts_document(tmp_path, ["tests=1", "bench=0"])
    assert not found["right"] and found["kernels"]["right"]
    assert found["parts"]["tests"] == {
        "state": "failed",
        "code": "1",
        "log": ["one", "two", "3 failed"],
    }
    (tmp_path / "kernels.json").write_text(json.dumps(document | {"right": False}))
    assert not parts_document(tmp_path, ["bench=0"])["right"]
