"""What became of a graph: the kernels of a TensorRT-RTX plan, counted by kind.

A local diagnostic. A plan holds the compiler's own text between binary parts; its form is not
documented, so only names are read. It says nothing of speed: stubs are chosen on the card.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vr_trt.engines.builder import PLAN
from vr_trt.errors import ModelError

# A kernel's name lists what it does, four letters an operator: __myl_SiluConcTranSlic.
FUSED_ATTENTION = "fused attention"
_CLEARED = "counters cleared"  # a few hundred bytes, before kernels whose blocks count each other
_KINDS = (
    (FUSED_ATTENTION, r"_gemm_mha"),
    ("softmax apart", r"MaxrSubExp"),
    ("norm", r"Inor|Gnor|SqrtDiv|Mean|Rsqr"),
    ("quantise", r"Quan|Fp8|Conv8"),
    ("activation", r"Silu|Gelu|Tanh|Sigm"),
    ("gather", r"Gath"),
    ("arithmetic", r"Add|Mul|Sub|Div|Exp|Sele|Cast"),
    (_CLEARED, r"^$"),
    ("movement only", r""),
)
_STUB_KINDS = {
    "fully_connected": "matrix product",
    "corrltn": "convolution",
    "runtime_function": "library call",
    "runtime_fusion": "product with epilogue",
}
# Kernels are listed in the order in which they run: `function={ name=... input_args={ "a" } ... }`.
_KERNEL = re.compile(rf'(function|{"|".join(_STUB_KINDS)})=\{{ name="?([^\s"]+)([^\n]*)'.encode())
_READS = re.compile(rb" input(?:_args)?=\{([^}]*)\}")
_WRITES = re.compile(rb" output(?:_args)?=\{([^}]*)\}")
_TENSOR = re.compile(
    rb'tensor=\{[^\n]*? dims=\{ ([\d ]*)\}[^\n]*? name="([^"]+)"[^\n]*? type=(\w+) \}'
)
_TARGETS = re.compile(rb"accelerators=\{([^}]*)\}")
_WEIGHTS = b"const"  # in the name of every tensor that is one
_ITEM_BYTES = {b"float": 4, b"int32": 4, b"int64": 8, b"half": 2, b"bf16": 2, b"bfloat16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """Counts of one plan."""

    targets: tuple[str, ...]
    names: dict[str, int]  # kernel -> how often
    stub_kinds: dict[str, int]  # left to the card
    traffic: dict[str, int]  # kind -> bytes that it reads and writes, weights apart

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
        found = {"kinds": self.kinds, "bytes": self.traffic, "names": self.names}
        return {"targets": list(self.targets)} | found


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
    sizes = {match[2]: _bytes(match) for match in _TENSOR.finditer(content)}
    names: Counter[str] = Counter()
    stubs: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    for what, name, rest in (match.groups() for match in _KERNEL.finditer(content)):
        tensors = [*_tensors(_READS, rest), *_tensors(_WRITES, rest)]
        moved = sum(sizes.get(tensor, 0) for tensor in tensors if _WEIGHTS not in tensor)
        if what == b"function":
            names[name.decode(errors="replace")] += 1
            traffic[_kind(name.decode(errors="replace"))] += moved
        else:
            stubs[_STUB_KINDS[what.decode()]] += 1
            traffic[f"stub: {_STUB_KINDS[what.decode()]}"] += moved
    if not names and not stubs:
        raise ModelError(f"{plan} is no plan of tensorrt-rtx: only those can be looked into")
    targets = _TARGETS.search(content)
    return PlanReport(
        targets=tuple(targets[1].decode().split()) if targets else (),
        names=dict(names.most_common()),
        stub_kinds=dict(stubs.most_common()),
        traffic=dict(traffic.most_common()),
    )


def _bytes(tensor: re.Match[bytes]) -> int:
    return math.prod(map(int, tensor[1].split())) * _ITEM_BYTES.get(tensor[3], 1)


def _tensors(pattern: re.Pattern[bytes], line: bytes) -> list[bytes]:
    found = pattern.search(line)
    return re.findall(rb'"([^"]+)"', found[1]) if found else []


def _kind(name: str) -> str:
    if name == "__myl_Move":  # moves nothing in: it only writes zeros
        return _CLEARED
    return next(kind for kind, pattern in _KINDS if re.search(pattern, name))
