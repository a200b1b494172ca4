"""What says that, and how, a VAE may run in E4M3: the report of `bench/fp8_vae_gate.py`.

It has, for the encoder and for the decoder, the largest input of every layer that was quantised, and
the gate's verdict: the decoded frames must be nearer to the wide network's than another seed of the
generator brings them. A half that did not pass stays in 16 bits.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vr_trt.errors import ModelError

OLDEST_CHIP = 89  # that has E4M3
STAGES = {  # what the gate judges: no pictures
    "encoder": ("encode_start", "encode_step"),
    "decoder": ("decode_start", "decode_step"),
}
_REMEDY = "measure it with `python -m vr_trt.bench.fp8_vae_gate CLIP --out FILE`"

Amax = Mapping[str, float]  # layer -> the magnitude that is to be E4M3's largest


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp8Vae:
    """A calibration of the halves that passed their gate."""

    weights: str  # sha256 of the VAE's file
    amax: Mapping[str, Amax]  # "encoder", "decoder" -> its layers

    @classmethod
    def read(cls, report: Path) -> Self:
        """That of the gate's report; ModelError where it is none, or no half passed."""
        try:
            gate: Mapping[str, Any] = json.loads(report.read_text(encoding="utf-8"))["gate"]
            halves = [half for half in STAGES if gate["passed"][half] is True]
            amax = {half: _checked(gate["amax"][half]) for half in halves}
            found = cls(weights=gate["weights"], amax=amax)
        except OSError as error:
            raise ModelError(f"cannot read {report}: {error.strerror}; {_REMEDY}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{report} is no report of the gate ({error}): {_REMEDY}") from None
        if not halves:
            raise ModelError(f"{report} says that E4M3 failed its gate: leave fp8_vae out")
        return found

    def as_flag(self) -> str:
        """One text, equal for equal content: it decides a plan's content."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_flag(cls, text: str) -> Self:
        """What `as_flag` gave."""
        return cls(**json.loads(text))

    def of(self, stage: str) -> Amax:
        """The layers of `stage` that take E4M3; none where its half did not pass."""
        return next((self.amax[half] for half in self.amax if stage in STAGES[half]), {})

    def check(self, weights: Mapping[str, str], targets: tuple[int, ...]) -> None:
        """ModelError unless it is of these weights, file to sha256, and every chip has E4M3."""
        if self.weights not in weights.values():
            raise ModelError(f"fp8_vae was measured on other weights of the VAE: {_REMEDY}")
        if lacking := [sm for sm in targets if sm < OLDEST_CHIP]:
            raise ModelError(f"sm_{lacking[0]} has no E4M3: leave fp8_vae out")


def _checked(amax: Mapping[str, float]) -> dict[str, float]:
    values = {str(name): float(value) for name, value in amax.items()}
    if not values or not all(0 < value < float("inf") for value in values.values()):
        raise ValueError("no magnitudes")
    return values
