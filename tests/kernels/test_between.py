"""The kernels between the stages: run by the interpreter, and as the PTX that ships."""

import re
from itertools import permutations
from pathlib import Path

import pytest
from tests.chips import chips
from tests.kernel_runs import run

triton = pytest.importorskip("triton")

from vr_trt.kernels import code_values
from vr_trt.kernels.aot import assemble, parameters
from vr_trt.kernels.between import BLOCK, FOLDER, KINDS, MADE_BY, compiled, without_notes
from vr_trt.runtime import cuda_kernels

PLANE = [".u64", ".u32", ".u32"]  # where it lies, its steps

RUNS = Path(__file__).with_name("run_between.py")


def test_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=41)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=41)


def test_what_ships_is_what_the_source_compiles_to() -> None:
    texts = {path.name: path.read_text("ascii").partition("\n") for path in FOLDER.iterdir()}
    (head,) = {head for head, _, _ in texts.values()}  # all by one version
    assert re.fullmatch(MADE_BY + r"\d+\.\d+\.\d+", head)
    if head != f"{MADE_BY}{triton.__version__}":
        pytest.skip(f"what ships is made {head.removeprefix('// ')}; here is {triton.__version__}")
    kernels = [*compiled(), *code_values.compiled()]
    made = {f"{name}.ptx": without_notes(kernel.ptx) for name, kernel in kernels}
    assert made == {name: body for name, (_, _, body) in texts.items()}


@pytest.mark.parametrize("sm", chips(quick=(90,)))
def test_it_assembles_for_newer_chips_too(sm: int) -> None:
    for path in FOLDER.iterdir():
        assert assemble(path.read_text("ascii"), f"sm_{sm}")[:4] == b"\x7fELF"


def test_the_launcher_knows_names_arguments_and_block() -> None:
    pairs = (*permutations(KINDS, 2), ("fp32", "u16"), ("u16", "fp32"))
    names = {f"convert_{a}_{b}" for a, b in pairs} | {"blend"}
    names |= {f"{verb}_{k}" for verb in ("place", "cells", "digest") for k in code_values.KINDS}
    assert cuda_kernels.FOLDER.resolve() == FOLDER.resolve() and cuda_kernels.BLOCK == BLOCK
    assert names == {path.stem for path in FOLDER.iterdir()}
    kinds = {
        "convert": [".u64", ".u32", ".u64", ".u32", ".u32"],
        "blend": [".u64", ".u64", ".u64", ".f32", ".u32"],
        "place": [*PLANE, *PLANE, ".u32", ".u32", ".u32"],
        "cells": [".u64", *PLANE, ".u32", ".u64", ".u64", ".u32", ".u32", ".u32"],
        "digest": [".u64", *PLANE, ".u64", ".u32"],
    }
    for name in names:
        ptx = (FOLDER / f"{name}.ptx").read_text("ascii")
        verb = name.partition("_")[0]
        assert [part.split()[1] for part in parameters(ptx, f"{verb}_kernel")] == kinds[verb]
        assert ".reqntid 128" in ptx


def test_conversions_round_to_the_nearest() -> None:
    for kind in ("bf16", "fp16"):
        ptx = (FOLDER / f"convert_fp32_{kind}.ptx").read_text("ascii")
        conversions = set(re.findall(r"cvt\.\S+\.f32\b", ptx))
        assert conversions and all(name.startswith("cvt.rn.") for name in conversions)


def test_products_and_sums_are_rounded_apart() -> None:
    assert "fma" not in (FOLDER / "blend.ptx").read_text("ascii")
