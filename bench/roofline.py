"""The least time that a chip needs for some work, from its own two measured ceilings."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

Unit = Literal["bf16", "fp8", "copy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What the chip was seen to do here, today: of these the floor is computed."""

    bf16_tflops: float  # a large matrix product
    copy_gbps: float  # a large copy, bytes read plus bytes written
    fp8_tflops: float | None = None  # None where the chip or the library has none

    def rate(self, unit: Unit) -> float | None:
        """Operations a second of the unit that does the work; None where arithmetic is no limit."""
        if unit == "copy":
            return None
        tflops = self.bf16_tflops if unit == "bf16" else self.fp8_tflops
        return None if tflops is None else tflops * 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a result needs, whoever computes it: not what some kernel happens to do."""

    unit: Unit  # "copy" for what the matrix units have no part in
    flops: float  # two a multiply-add
    bytes: float  # every input read once, every output written once

    def floor_ms(self, ceilings: Ceilings) -> tuple[float, Literal["arithmetic", "memory"]]:
        """No version runs in less, and which of the two is the reason."""
        rate = ceilings.rate(self.unit)
        arithmetic = 0.0 if rate is None else self.flops / rate * 1e3
        memory = self.bytes / (ceilings.copy_gbps * 1e9) * 1e3
        return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")

    def achieved(self, ms: float, ceilings: Ceilings | None) -> dict[str, float]:
        """TFLOP/s and GB/s at `ms`, and the floor's share of that time."""
        row = {"tflops": self.flops / ms / 1e9, "gbps": self.bytes / ms / 1e6}
        if ceilings is not None:
            row["of_floor"] = self.floor_ms(ceilings)[0] / ms
        return row


CEILINGS = tuple(field.name for field in fields(Ceilings))


def ceilings_from(measured: Mapping[str, float]) -> Ceilings | None:
    """The ceilings, or None where one of the two that everything needs is missing."""
    if not {"bf16_tflops", "copy_gbps"} <= set(measured):
        return None
    return Ceilings(**measured)
