"""`vr-trt engines` as a user meets it: builds, refusals of one line, and nothing left behind."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine_graphs import make_graphs

from vr_trt.cli import exit_code
from vr_trt.cli_engines import _usable_backends
from vr_trt.engines.build import BuildRequest
from vr_trt.engines.cache import Canvas


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(make_graphs(tmp_path / "model"))


@pytest.fixture
def refused(cache: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(code, *arguments): expect `code`, one line, and no cache; give the line back."""

    def check(code: int, *arguments: str) -> str:
        found = exit_code(["engines", *arguments])
        shown = capfd.readouterr()
        lines = shown.err.splitlines()
        assert shown.out == "" and len(lines) == 1, (shown.out, shown.err)
        assert found == code and lines[0].startswith("vr-trt: ")
        assert not cache.exists() or not [p for p in cache.rglob("*") if p.is_file()]
        return lines[0]

    return check


def build(model: str, *more: str) -> int:
    size = ["--size", "64x32", "--backend", "onnxruntime"]
    return exit_code(["engines", "build", "--model", model, *size, *more])


def test_no_engine_is_said(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["engines", "list"]) == 0
    assert capsys.readouterr().out.startswith("0 engines in ")


def test_build_list_verify_prune(
    model: str, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert build(model) == 0
    shown = capfd.readouterr().out.splitlines()
    assert shown[-1] == "2 built, 0 up to date" and "onnxruntime cpu fp32" in shown[0]
    assert build(model) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "0 built, 2 up to date"

    assert exit_code(["engines", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["stage"] for row in rows] == ["generator", "generator_image"]
    assert exit_code(["engines", "verify"]) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["ok", "ok"]

    next((cache / "engines").glob("generator-*/plan")).write_bytes(b"?")
    assert exit_code(["engines", "verify"]) == 3
    shown = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["damaged", "ok"]
    assert exit_code(["engines", "prune", "--dry-run"]) == 0
    assert "would remove generator-" in capfd.readouterr().out
    assert exit_code(["engines", "prune"]) == 0
    assert exit_code(["engines", "verify"]) == 0


def test_what_changed_is_said(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(model, "--stage", "generator")
    capfd.readouterr()
    build(str(make_graphs(tmp_path / "half", "fp16")), "--stage", "generator", "--json")
    shown = capfd.readouterr()
    row = json.loads(shown.out)
    assert row["action"] == "built" and len(row["digest"]) == 64
    assert [change.split()[0] for change in row["changes"]] == ["onnx", "precision"]
    assert "precision fp32 -> fp16" in row["changes"]
    assert Path(row["plan"]).is_file()


def test_engines_know_their_model_from_anywhere(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(model).parent)
    assert build(Path(model).name, "--stage", "generator") == 0
    monkeypatch.chdir("/")
    shutil.rmtree(model)
    make_graphs(Path(model), seed=1)
    capfd.readouterr()
    assert exit_code(["engines", "verify"]) == 0
    assert "stale" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--profile", "9p"], "unknown profile '9p': choose one of 360p"),
        (["--precision", "int3"], "unknown precision 'int3': choose one of fp32"),
        (["--backend", "cuda"], "unknown backend 'cuda': choose one of tensorrt-rtx"),
        (["--sm", "88"], "unknown compute capability '88': choose of sm_75"),
        (["--sm", "hopper"], "unknown compute capability 'hopper'"),
        (["--sm", "90"], "does not support sm_90 (H100, H200)"),
        (["--sm", "8.9,100"], "does not support sm_100"),
        (["--sm", "86", "--precision", "fp8"], "sm_86 (Ampere, RTX 30) has no fp8"),
        (["--sm", "80,89", "--precision", "fp8"], "sm_80 (A100) has no fp8"),
        (["--sm", "75", "--precision", "bf16"], "sm_75 (Turing) has no bf16"),
        (["--backend", "onnxruntime", "--sm", "89"], "for the CPU, not for sm_89"),
        (["--backend", "onnxruntime", "--precision", "bf16"], "no bf16 on the CPU"),
        (["--model", "nope"], "unknown model 'nope': choose one of nano"),
        (["--model", "seedvr2-3b"], "vr-trt weights pull seedvr2-3b"),
        (["--stage", "middle"], "unknown stage middle"),
        (["--stage", "decode_step"], "no stage of a VAE cut by resolution: give --whole as well"),
        (["--stage", "encode_fine_step", "--whole", "--precision", "fp16"], "give --cut as well"),
        (["--size", "wide"], "wide is not a size"),
        (["--size", "0x32"], "0x32 is not a size"),
        (["--option", "fast"], "fast is not an option"),
        (["--backend", "tensorrt-rtx", "--option", "fast=1"], "no option 'fast'"),
        (["--backend", "onnxruntime", "--option", "fast=1"], "no option 'fast'"),
    ],
)
def test_bad_requests(
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("VR_TRT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert says in refused(3, "build", *arguments)


def test_a_backend_that_is_not_installed(
    refused: Callable[..., str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.engines.build_tensorrt_rtx import TensorRtRtxBuilder

    monkeypatch.setattr(TensorRtRtxBuilder, "version", lambda self: "")
    line = refused(3, "build", "--model", model, "--backend", "tensorrt-rtx")
    assert "pip install 'vr-trt[rtx]'" in line


def test_without_a_named_backend_one_that_is_missing_is_skipped(
    model: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from vr_trt.engines.build_tensorrt_rtx import TensorRtRtxBuilder

    monkeypatch.setattr(TensorRtRtxBuilder, "version", lambda self: "")
    assert exit_code(["engines", "build", "--model", model, "--size", "64x32"]) == 0
    shown = capfd.readouterr()
    assert "skipped: tensorrt-rtx is not installed" in shown.err
    assert shown.out.splitlines()[-1] == "2 built, 0 up to date"


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt-rtx"])
def test_a_missing_data_file(refused: Callable[..., str], model: str, backend: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    (Path(model) / "weights.bin").unlink()
    line = refused(3, "build", "--model", model, "--size", "64x32", "--backend", backend)
    assert "weights.bin is missing" in line


def test_a_data_file_that_the_manifest_does_not_know(
    refused: Callable[..., str], model: str
) -> None:
    """The graph needs it all the same."""
    (Path(model) / "weights.bin").unlink()
    manifest = json.loads((Path(model) / "manifest.json").read_text())
    del manifest["sha256"]["weights.bin"]
    (Path(model) / "manifest.json").write_text(json.dumps(manifest))
    line = refused(3, "build", "--model", model, "--size", "64x32", "--backend", "onnxruntime")
    assert "weights.bin, the weights of generator.onnx, is missing" in line


def test_tensorrt_without_its_package_and_without_a_gpu(
    refused: Callable[..., str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.engines import build_tensorrt

    monkeypatch.setattr(build_tensorrt.TensorRtBuilder, "version", lambda self: "")
    arguments = ["build", "--model", model, "--backend", "tensorrt"]
    assert "tensorrt 11 is not installed: pip install" in refused(3, *arguments)
    monkeypatch.setattr(build_tensorrt.TensorRtBuilder, "version", lambda self: "11.4.0.106")
    monkeypatch.setattr(build_tensorrt, "present_gpu", lambda: None)
    assert "builds on the GPU that the engine is for" in refused(3, *arguments)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt-rtx"])
def test_a_disk_that_is_full(model: str, cache: Path, backend: str) -> None:
    """Every file that is written, in every process, ends after ten bytes."""
    pytest.importorskip("tensorrt_rtx")
    arguments = ["--model", model, "--size", "64x32", "--backend", backend]
    run = subprocess.run(
        [sys.executable, "-m", "vr_trt", "engines", "build", *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert run.returncode in (3, 4) and len(run.stderr.splitlines()) == 1, run.stderr
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody writes to")
def test_a_cache_that_is_read_only(
    refused: Callable[..., str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may make folders in /sys, not even root, whom a folder's mode does not stop."""
    monkeypatch.setenv("VR_TRT_CACHE", "/sys/kernel")
    line = refused(3, "build", "--model", model, "--size", "64x32", "--backend", "onnxruntime")
    assert "/sys/kernel/engines cannot be used" in line and "set VR_TRT_CACHE" in line


def test_a_disk_that_fills_up_leaves_earlier_engines_alone(model: str, cache: Path) -> None:
    assert build(model, "--stage", "generator") == 0
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    run = subprocess.run(
        [sys.executable, "-m", "vr_trt", "engines", "build", "--model", model, "--size", "64x32",
         "--backend", "onnxruntime", "--stage", "generator_image"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert run.returncode == 4 and len(run.stderr.splitlines()) == 1, run.stderr
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert before and after == before
    assert exit_code(["engines", "verify"]) == 0


def test_a_cache_that_cannot_be_made(
    refused: Callable[..., str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "file"))
    line = refused(3, "build", "--model", model, "--size", "64x32", "--backend", "onnxruntime")
    assert "set VR_TRT_CACHE to a folder of your own" in line


def test_debug_needs_something_to_look_at(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.engines import polygraphy_tool

    assert "give --fusions PLAN" in refused(2, "debug")
    assert "cannot read" in refused(3, "debug", "--fusions", str(tmp_path / "none"))
    (tmp_path / "plan").write_text("not a plan")
    assert "no plan of tensorrt-rtx" in refused(3, "debug", "--fusions", str(tmp_path / "plan"))
    monkeypatch.setattr(polygraphy_tool, "find_spec", lambda name: None)
    graph = str(tmp_path / "plan")
    assert "pip install polygraphy" in refused(3, "debug", graph, "--compare")


def test_nano_is_built_with_no_argument(capfd: pytest.CaptureFixture[str], cache: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    if not (Path(__file__).parents[1] / "engines" / "nano" / "manifest.json").is_file():
        pytest.skip("this version ships no nano graphs")
    assert exit_code(["engines", "build"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "24 built, 0 up to date"
    names = sorted(path.name for path in (cache / "engines").glob("generator-nano-*"))
    assert len(names) == 2 and "cpu" in names[0] and "sm89-sm120" in names[1]
    assert exit_code(["engines", "verify"]) == 0


def test_a_backend_that_nobody_named_and_that_lacks_the_precision_is_skipped() -> None:
    pytest.importorskip("tensorrt_rtx")
    canvas = Canvas(width=64, height=32, latents=6, step=1)
    asked = BuildRequest(model="nano", profile="360p", canvas=canvas, backend="", precision="bf16")
    said: list[str] = []
    assert _usable_backends(asked, said.append) == ["tensorrt-rtx"]
    assert said == ["skipped: onnxruntime has no bf16 on the CPU: choose fp32 or fp16"]
    everything = replace(asked, precision="fp8")
    assert _usable_backends(everything, said.append) == ["tensorrt-rtx", "onnxruntime"]
