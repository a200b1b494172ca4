"""The gate of fp8: its error must be below what another seed of the noise changes.

Both are measured against the wide network with the same inputs, in decibels: of the restored latents
against their own size, and of the decoded frames against their full range. An engine in fp8 is
offered only if it is the nearer one in both, in every window. `vr_trt.bench.fp8_gate` measures.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

FORMAT = 1
AIM = 48.0  # dB of the decoded frames
_REMEDY = "measure it with `vr-trt calibrate CLIP… --model {model}`, or take --precision fp16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Decibels, higher is nearer to the wide network."""

    fp8: float
    other_seed: float

    @property
    def passes(self) -> bool:
        """False for what is not a number, too."""
        return self.fp8 > self.other_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One window of latents of a clip."""

    clip: str
    first_latent: int
    generator: Score  # latents: signal to error
    frames: Score  # decoded: PSNR

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `asdict` gave; KeyError, TypeError or ValueError for anything else."""
        scores = {name: Score(**content[name]) for name in ("generator", "frames")}
        return cls(**{**content, **scores})


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The verdict on one calibration of one model."""

    model: str
    calibration: str  # sha256 of the table's file
    recipe: int  # of the numbers, see `vr_trt.export.calibration_table`
    windows: tuple[Window, ...]

    @property
    def passed(self) -> bool:
        """Whether fp8 is nearer than another seed everywhere."""
        return bool(self.windows) and all(
            window.generator.passes and window.frames.passes for window in self.windows
        )

    @property
    def generator(self) -> Score:
        """The worst of the windows' latents."""
        return _worst([window.generator for window in self.windows])

    @property
    def frames(self) -> Score:
        """The worst of the windows' decoded frames."""
        return _worst([window.frames for window in self.windows])

    def as_json(self) -> dict[str, Any]:
        """Plain values; those that follow from others are for people."""
        return {
            "format": FORMAT,
            "passed": self.passed,
            "aim": AIM,
            **{name: asdict(getattr(self, name)) for name in ("generator", "frames")},
            **asdict(self),
            "windows": [asdict(window) for window in self.windows],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `as_json` gave; KeyError, TypeError or ValueError for anything else."""
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        windows = tuple(Window.from_json(window) for window in content["windows"])
        known = {field.name: content[field.name] for field in fields(cls)}
        return cls(**{**known, "windows": windows})

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        return (
            f"gate {verdict}: frames {self.frames.fp8:.1f} dB, another seed "
            f"{self.frames.other_seed:.1f} dB; latents {self.generator.fp8:.1f} dB and "
            f"{self.generator.other_seed:.1f} dB"
        )


def refusal(gate: Mapping[str, Any] | None, model: str) -> str:
    """Why fp8 of `model` must not be used, given its gate's verdict as JSON; "" if it may be."""
    remedy = _REMEDY.format(model=model)
    if gate is None:
        return f"fp8 of {model} has not passed its gate, which was never measured: {remedy}"
    try:
        found = Gate.from_json(gate)
    except (KeyError, TypeError, ValueError) as error:
        return f"fp8 of {model} has no valid verdict of its gate ({error}): {remedy}"
    return "" if found.passed else f"fp8 of {model} is not offered, {found}: {remedy}"


def _worst(scores: list[Score]) -> Score:
    """That with the least distance from the other seed."""
    nothing = Score(fp8=-math.inf, other_seed=math.inf)
    return min(scores, key=lambda score: score.fp8 - score.other_seed, default=nothing)
