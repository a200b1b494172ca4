"""NVIDIA's chips by compute capability, and the number formats that their matrix units know."""

from collections.abc import Iterable

from vr_trt.errors import ModelError

CHIPS = {
    75: "Turing",
    80: "A100",
    86: "Ampere, RTX 30",
    87: "Orin",
    89: "Ada, RTX 40, L40S",
    90: "H100, H200",
    100: "B200",
    103: "B300",
    110: "Thor",
    120: "Blackwell, RTX 50",
    121: "GB10",
}
PRECISIONS = ("fp32", "fp16", "bf16", "fp8")
_FIRST_CHIP = {"fp32": 75, "fp16": 75, "bf16": 80, "fp8": 89}


def check_precision(precision: str) -> None:
    """ModelError for a precision that is none of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ModelError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")


def check_chip(precision: str, sm: int) -> None:
    """ModelError for a chip that nobody knows, or one that cannot compute in `precision`."""
    check_precision(precision)
    if sm not in CHIPS:
        raise ModelError(f"unknown compute capability sm_{sm}: choose one of {listed(CHIPS)}")
    if sm < _FIRST_CHIP[precision]:
        able = [other for other in CHIPS if other >= _FIRST_CHIP[precision]]
        raise ModelError(
            f"sm_{sm} ({CHIPS[sm]}) has no {precision}: choose fp16, or one of {listed(able)}"
        )


def listed(chips: Iterable[int]) -> str:
    """`sm_89, sm_120`."""
    return ", ".join(f"sm_{sm}" for sm in chips)
