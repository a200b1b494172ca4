"""Running needs no torch and no onnx, and the command line answers at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video

import vr_trt

HEAVY = ("torch", "onnx", "onnxscript", "triton", "safetensors", "huggingface_hub", "skimage")
BLOCK = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n"  # importing them raises


def python(code: str, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_run_needs_none_of_the_heavy_packages(tmp_path: Path) -> None:
    model = make_fake_model(tmp_path / "model")
    film = make_video(tmp_path / "in.mp4", frames=6, size=(64, 48))
    code = BLOCK + "from vr_trt.cli import main; main(sys.argv[1:])"
    shown = python(code, "run", str(film), "--profile", "360p", "--model", str(model), "--json")
    assert json.loads(shown.splitlines()[-1])["frames"] == 6


@pytest.mark.parametrize("verb", [["plan", "--help"], ["profiles"], ["weights", "--help"]])
def test_verbs_need_none_of_them(verb: list[str]) -> None:
    assert python(BLOCK + "from vr_trt.cli import main; main(sys.argv[1:])", *verb)


@pytest.mark.parametrize("missing", ["onnxruntime", "av", "numpy"])
def test_the_doctor_works_where_something_is_missing(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from vr_trt.cli import exit_code\n"
        "print(exit_code(['doctor', '--json']), exit_code(['run', 'x.mp4']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "3 3"
    assert run.stderr == f"vr-trt: {missing} is not installed: vr-trt doctor says how to get it\n"


def test_importing_the_package_and_the_command_line_is_light() -> None:
    code = "import sys, vr_trt, vr_trt.cli; print(' '.join(sys.modules))"
    loaded = {name.split(".")[0] for name in python(code).split()}
    assert "typer" in loaded
    assert not loaded & {*HEAVY, "numpy", "av", "onnxruntime"}


def test_little_is_loaded_before_ctrl_c_is_handled() -> None:
    """What may show a traceback: the interpreter's own start (`-S`: without site) comes on top."""
    source = str(Path(vr_trt.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {source!r}); import vr_trt.__main__; print(*sys.modules)"
    )
    command = [sys.executable, "-S", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "_signal" in run.stdout.split()
    assert not {"enum", "typing", "re", "contextlib", "vr_trt.cli", "typer"} & {*run.stdout.split()}


def test_help_takes_less_than_half_a_second() -> None:
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'vr_trt', '--help'], check=True, stdout=-3)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    python(code)  # byte code is compiled once
    assert min(float(python(code)) for _ in range(2)) < 0.4


def test_the_public_names() -> None:
    code = "import vr_trt; print(sorted(vr_trt.__all__)); print(vr_trt.Restorer.__name__)"
    assert python(code).split("\n")[:2] == ["['Report', 'Restorer', '__version__']", "Restorer"]
