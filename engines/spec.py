"""What decides a plan's content, and the digest of it that names the engine's folder."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

Sizes = tuple[int, ...]
DIGEST_LETTERS = 12  # of the digest, in a folder's name


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Everything that decides the content of one stage's plan, and nothing else."""

    model: str
    weights: Mapping[str, str]  # file -> sha256
    stage: str
    onnx: str  # sha256 of the graph and of the data beside it
    shapes: Mapping[str, Sizes]  # by input: an engine is of one size
    precision: str
    backend: str
    backend_version: str
    targets: tuple[int, ...]  # compute capabilities as 89, 120; empty for the CPU
    flags: Mapping[str, str]  # what the builder is asked for, and what it depends on
    recipe: int  # of our builder: raised when the same request would give another plan

    def __post_init__(self) -> None:
        if list(self.targets) != sorted(set(self.targets)):
            raise ValueError(f"targets {self.targets} must ascend")
        if wrong := [name for name, sizes in self.shapes.items() if min(sizes, default=1) < 1]:
            raise ValueError(f"input {wrong[0]} has no elements: {self.shapes[wrong[0]]}")

    def as_json(self) -> dict[str, Any]:
        """The form that is hashed and written to manifests."""
        return {
            "model": self.model,
            "weights": dict(self.weights),
            "stage": self.stage,
            "onnx": self.onnx,
            "shapes": {name: list(sizes) for name, sizes in self.shapes.items()},
            "precision": self.precision,
            "backend": self.backend,
            "backend_version": self.backend_version,
            "targets": list(self.targets),
            "flags": dict(self.flags),
            "recipe": self.recipe,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `as_json` wrote; KeyError, TypeError or ValueError for anything else."""
        if unknown := sorted(set(content) - {field.name for field in fields(cls)}):
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        shapes = {name: _sizes(sizes) for name, sizes in content["shapes"].items()}
        return cls(**{**content, "shapes": shapes, "targets": tuple(content["targets"])})

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """A name for people that ends with the first letters of the digest."""
        target = "-".join(f"sm{sm}" for sm in self.targets) or "cpu"
        parts = (self.stage, self.model, self.precision, self.backend, target)
        return "-".join((*map(file_name, parts), self.digest[:DIGEST_LETTERS]))


def file_name(text: str) -> str:
    """`text` as a part of a file's name: letters, digits, and `_` for a run of anything else."""
    return re.sub(r"[^A-Za-z0-9._-]+|^\.", "_", text)


def is_engine_name(name: str) -> bool:
    """True for a name as `EngineSpec.folder_name` gives."""
    return re.search(rf"^[^.].*-[0-9a-f]{{{DIGEST_LETTERS}}}$", name) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One field that two specs do not have in common; None where one lacks it."""

    field: str  # "precision", or "flags.level" within a table
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field} {_short(self.old)} -> {_short(self.new)}"


def difference(old: EngineSpec, new: EngineSpec) -> list[Change]:
    """The fields in which `new` differs from `old`, in the order of the spec."""
    before, after = _flat(old.as_json()), _flat(new.as_json())
    names = list(dict.fromkeys((*before, *after)))
    return [
        Change(field=name, old=before.get(name), new=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": value[key] for key in sorted(value)}
        else:
            flat[name] = value
    return flat


def _sizes(content: Any) -> Sizes:
    if not all(type(size) is int for size in content):
        raise TypeError(f"sizes must be whole numbers: {content}")
    return tuple(content)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
