"""The floor under a kernel's time, computed by hand."""

from dataclasses import replace

import pytest

from vr_trt.bench.roofline import Ceilings, Work, ceilings_from

CHIP = Ceilings(flops=800e12, bytes=4e12)


def test_arithmetic_bounds_what_computes_much() -> None:
    work = Work(unit="wide", flops=8e12, bytes=4e9)  # 10 ms of products, 1 ms of memory
    assert work.floor(CHIP) == (0.01, "arithmetic")
    assert work.achieved(20.0, CHIP) == {
        "tflops": pytest.approx(400.0),
        "gbps": pytest.approx(200.0),
        "of_floor": pytest.approx(0.5),
    }


def test_memory_bounds_what_moves_much() -> None:
    work = Work(unit="wide", flops=8e9, bytes=4e9)
    assert work.floor(CHIP) == (1e-3, "memory")


def test_what_the_matrix_units_do_not_do_is_bound_by_memory_alone() -> None:
    assert Work(unit="copy", flops=8e12, bytes=4e9).floor(CHIP) == (1e-3, "memory")


def test_fp8_has_its_own_ceiling_or_none() -> None:
    work = Work(unit="fp8", flops=8e12, bytes=4e9)
    assert work.floor(CHIP) == (1e-3, "memory")
    faster = Ceilings(flops=800e12, bytes=4e12, fp8_flops=1600e12)
    assert work.floor(faster) == (5e-3, "arithmetic")


def test_without_ceilings_there_is_no_share_of_them() -> None:
    assert ceilings_from({"bf16_tflops": 800.0}) is None
    measured = {"bf16_tflops": 800.0, "copy_gbps": 4000.0}
    assert ceilings_from(measured) == CHIP
    assert ceilings_from(measured | {"fp8_tflops": 1600.0}) == replace(CHIP, fp8_flops=1.6e15)
    row = Work(unit="copy", flops=0.0, bytes=1e9).achieved(1.0, None)
    assert row == {"tflops": 0.0, "gbps": pytest.approx(1000.0)}
