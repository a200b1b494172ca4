"""What became of a graph: the kernels of a TensorRT-RTX plan, counted by kind.

A local diagnostic. A plan holds the compiler's own text between binary parts; its form is not
documented, so only names are read. It says nothing of speed: stubs are chosen on the card.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vr_trt.engines.builder import PLAN
from vr_trt.errors import ModelError

# A kernel's name lists what it does, four letters an operator: __myl_SiluConcTranSlic.
FUSED_ATTENTION = "fused attention"
_KINDS = (
    (FUSED_ATTENTION, r"_gemm_mha"),
    ("softmax apart", r"MaxrSubExp"),
    ("norm", r"Inor|Gnor|SqrtDiv|Mean|Rsqr"),
    ("quantise", r"Quan|Fp8|Conv8"),
    ("activation", r"Silu|Gelu|Tanh|Sigm"),
    ("gather", r"Gath"),
    ("arithmetic", r"Add|Mul|Sub|Div|Exp|Sele|Cast"),
    ("movement only", r""),
)
_KERNEL = re.compile(rb"function=\{ name=(\S+)")
_STUB = re.compile(rb"(fully_connected|corrltn|runtime_function|runtime_fusion)=\{ name=")
_STUB_KINDS = {
    "fully_connected": "matrix product",
    "corrltn": "convolution",
    "runtime_function": "library call",
    "runtime_fusion": "product with epilogue",
}
_TARGETS = re.compile(rb"accelerators=\{([^}]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """Counts of one plan."""

    targets: tuple[str, ...]
    names: dict[str, int]  # kernel -> how often
    stub_kinds: dict[str, int]  # left to the card

    @property
    def kernels(self) -> int:
        return sum(self.names.values())

    @property
    def stubs(self) -> int:
        return sum(self.stub_kinds.values())

    @property
    def kinds(self) -> dict[str, int]:
        """Kernels by kind, then stubs by kind; kinds that do not occur are left out."""
        found: Counter[str] = Counter()
        for name, count in self.names.items():
            found[_kind(name)] += count
        ordered = {kind: found[kind] for kind, _ in _KINDS if found[kind]}
        return ordered | {f"stub: {kind}": count for kind, count in self.stub_kinds.items()}

    def example(self, kind: str) -> str:
        """The most frequent kernel of `kind`; "" for stubs."""
        names = [name for name in self.names if _kind(name) == kind]
        return max(names, key=lambda name: self.names[name], default="")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"targets": list(self.targets), "kinds": self.kinds, "names": self.names}


def report_plan(path: Path) -> PlanReport:
    """Count the kernels of the plan `path`, a file or an engine's folder.

    ModelError if it is not there or is no plan of TensorRT-RTX.
    """
    plan = path / PLAN if path.is_dir() else path
    try:
        content = plan.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read {plan}: {error.strerror}; give a plan or its folder"
        ) from None
    names = Counter(match[1].decode(errors="replace") for match in _KERNEL.finditer(content))
    stubs = Counter(_STUB_KINDS[match[1].decode()] for match in _STUB.finditer(content))
    if not names and not stubs:
        raise ModelError(f"{plan} is no plan of tensorrt-rtx: only those can be looked into")
    targets = _TARGETS.search(content)
    return PlanReport(
        targets=tuple(targets[1].decode().split()) if targets else (),
        names=dict(names.most_common()),
        stub_kinds=dict(stubs.most_common()),
    )


def _kind(name: str) -> str:
    return next(kind for kind, pattern in _KINDS if re.search(pattern, name))
