"""The least time that a chip needs for some work, from its own measured ceilings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["wide", "fp8", "copy"]
Bound = Literal["arithmetic", "memory"]
CEILINGS = ("bf16_tflops", "copy_gbps", "fp8_tflops")  # as `bench/timing.py` measures them


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What the chip was seen to do here, today; a second."""

    flops: float  # of a large matrix product: in fp32 on a CPU, in bf16 on a GPU
    bytes: float  # of a large copy, read plus written
    fp8_flops: float | None = None  # None where the chip or the library has no such product

    def rate(self, unit: Unit) -> float | None:
        """Operations a second of the unit that does the work; None where they are no limit."""
        return {"wide": self.flops, "fp8": self.fp8_flops, "copy": None}[unit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a result needs, whoever computes it: not what some kernel happens to do."""

    unit: Unit  # "copy" for what the matrix units have no part in
    flops: float  # two a multiply-add
    bytes: float  # every input read once, every output written once

    def floor(self, ceilings: Ceilings) -> tuple[float, Bound]:
        """Seconds in less than which no version runs, and which of the two is the reason."""
        rate = ceilings.rate(self.unit)
        arithmetic = 0.0 if rate is None else self.flops / rate
        memory = self.bytes / ceilings.bytes
        return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")

    def achieved(self, ms: float, ceilings: Ceilings | None) -> dict[str, float]:
        """TFLOP/s and GB/s at `ms`, and the floor's share of that time."""
        row = {"tflops": self.flops / ms / 1e9, "gbps": self.bytes / ms / 1e6}
        if ceilings is not None:
            row["of_floor"] = 1e3 * self.floor(ceilings)[0] / ms
        return row


def ceilings_from(measured: Mapping[str, float]) -> Ceilings | None:
    """The ceilings from those of `CEILINGS` that could be measured; None without the first two."""
    if not {"bf16_tflops", "copy_gbps"} <= set(measured):
        return None
    fp8 = measured.get("fp8_tflops")
    return Ceilings(
        flops=1e12 * measured["bf16_tflops"],
        bytes=1e9 * measured["copy_gbps"],
        fp8_flops=None if fp8 is None else 1e12 * fp8,
    )
