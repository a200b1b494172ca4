"""What the tests of kernels compiled ahead of time share: chips, their products, what must fit."""

from collections.abc import Iterable
from typing import Any

import pytest

from vr_trt.kernels.aot import SHARED_LIMIT, Compiled
from vr_trt.kernels.tuning import CHIPS

# The instruction that multiplies 16 bits, and E4M3.
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}
PRODUCT_FP8 = {89: "QMMA", 90: "QGMMA", 100: "UTCQMMA", 120: "QMMA"}
# Compiled for always: the least shared memory, and tiles that the copy engine fetches. Where a table
# has rows for other chips, these too.
QUICK = (86, 90)


def chips(of: Iterable[int] = CHIPS, quick: Iterable[int] = QUICK) -> list[Any]:
    """The chips as parameters of a test; all but the `quick` are left to `make test-all`."""
    kept = set(quick)
    return [c if c in kept else pytest.param(c, marks=pytest.mark.slow) for c in of]


def check_fits(compiled: Compiled, chip: int, registers: int = 255) -> None:
    """No register spills, and a block's shared memory is no more than the chip has."""
    assert compiled.spills == 0 and compiled.registers <= registers
    assert compiled.shared_bytes <= SHARED_LIMIT[chip]
