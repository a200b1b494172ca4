"""One thing to measure: a kernel or a stage at one size, our way and others'.

A file `bench/cases/K.py` per kernel has `cases(small)`, which returns its cases, true sizes or, for
a trial of the harness on the CPU, small ones. Nothing is computed until a case is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from vr_trt.bench.roofline import Unit, Work

if TYPE_CHECKING:
    from torch import Tensor

# In the order of importance, which is that of the report too.
MODULES = (
    *("vae", "generator", "conv3d", "window_attention", "fp8_linear"),
    *("frame_attention", "group_norm", "glue", "to_model", "to_video", "wavelet", "colour_match"),
)
OURS, PYTORCH, COMPILED = "ours", "PyTorch", "PyTorch compile"

Size = TypeVar("Size")
Call = Callable[[], Any]  # does the work once and returns what it made
Way = Callable[[Any], Call]  # from a case's inputs; what it prepares is not timed


def relative_rms(given: "Sequence[Tensor]", wanted: "Sequence[Tensor]") -> float:
    """Largest over the tensors of |given - wanted| / |wanted|; NaN where anything is."""
    import torch

    errors = []
    for ours, exact in zip(given, wanted, strict=True):
        if ours.shape != exact.shape:
            raise ValueError(f"a result is {tuple(ours.shape)}, not {tuple(exact.shape)}")
        size = exact.float().square().sum(dtype=torch.float64)
        away = (ours.float() - exact.float()).square().sum(dtype=torch.float64)
        errors.append((away / size.clamp_min(1e-300)).sqrt())
    return float(torch.stack(errors).max())  # which is NaN where one is


@dataclass(frozen=True, kw_only=True, slots=True)
class Tunable:
    """How a case runs with other block sizes than the table's."""

    table: str  # kernels/tuned/TABLE.toml
    key: Mapping[str, int | str]  # what a row of it depends on
    options: Callable[[int], Mapping[str, int]]  # of a chip as 90: what the table has now
    way: Callable[[Mapping[str, int]], Way]
    starts: Sequence[Mapping[str, int]] = ()  # what no single change of those leads to


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is computed, by whom, and when it counts as right."""

    name: str  # unique: "to_video 1080p, 4 frames"
    kernel: str
    importance: int  # 0 is measured first
    work: Work
    limit: float  # largest error that counts as right
    make: Callable[[str, int], Any]  # device and seed to random inputs
    reference: Callable[[Any], "Sequence[Tensor]"]  # in fp32 or wider
    ways: Mapping[str, Way]  # OURS and its rivals
    error: "Callable[[Sequence[Tensor], Sequence[Tensor]], float]" = relative_rms
    shape: Mapping[str, int | str] = field(default_factory=dict)  # for the report
    timed: bool = True  # False: an awkward size, only to be right
    seconds: float = 45.0  # that one way may take, with what it compiles
    tunable: Tunable | None = None

    @property
    def rivals(self) -> list[str]:
        return [name for name in self.ways if name != OURS]

    def card(self) -> dict[str, Any]:
        """What is known of it without running it."""
        return {
            "name": self.name,
            "kernel": self.kernel,
            "importance": self.importance,
            "shape": dict(self.shape),
            "unit": self.work.unit,
            "flops": self.work.flops,
            "bytes": self.work.bytes,
            "limit": self.limit,
            "timed": self.timed,
            "seconds": self.seconds,
            "ways": list(self.ways),
        }


def sized(
    case: Callable[[str, Size, bool], Case],  # of a label, a size, and whether it is timed
    small: bool,
    *,
    tiny: Mapping[str, Size],
    true: Mapping[str, Size],
    awkward: Mapping[str, Size],
) -> list[Case]:
    """A kernel's cases: the `tiny` sizes if `small`, else `true` ones, and `awkward` ones untimed."""
    if small:
        return [case(label, size, True) for label, size in tiny.items()]
    timed = [case(label, size, True) for label, size in true.items()]
    return [*timed, *(case(label, size, False) for label, size in awkward.items())]


def work_of(card: Mapping[str, Any]) -> Work:
    """The work that a card tells of."""
    unit: Unit = card["unit"]
    return Work(unit=unit, flops=card["flops"], bytes=card["bytes"])


def cases_of(module: str, small: bool) -> list[Case]:
    """The cases of one file; small ones without what PyTorch would compile for minutes."""
    found: list[Case] = import_module(f"vr_trt.bench.cases.{module}").cases(small)
    if not small:
        return found
    return [
        replace(case, ways={name: way for name, way in case.ways.items() if name != COMPILED})
        for case in found
    ]
