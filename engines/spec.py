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
class InputShape:
    """The sizes an engine takes at one input; all three are equal where only one size is built."""

    least: Sizes
    best: Sizes  # what the builder optimises for
    most: Sizes

    def __post_init__(self) -> None:
        if not len(self.least) == len(self.best) == len(self.most):
            raise ValueError(f"ranks differ: {self.least}, {self.best}, {self.most}")
        bounds = zip(self.least, self.best, self.most, strict=True)
        if not all(0 < least <= best <= most for least, best, most in bounds):
            raise ValueError(f"sizes out of order: {self.least}, {self.best}, {self.most}")

    @classmethod
    def exactly(cls, sizes: Sizes) -> Self:
        """One size only."""
        return cls(least=sizes, best=sizes, most=sizes)

    @property
    def is_static(self) -> bool:
        return self.least == self.most

    def as_json(self) -> list[Any]:
        """`[2, 3]`, or least, best and most: `[[1, 3], [2, 3], [4, 3]]`."""
        every = [self.best] if self.is_static else [self.least, self.best, self.most]
        lists = [list(sizes) for sizes in every]
        return lists[0] if self.is_static else lists

    @classmethod
    def from_json(cls, content: list[Any]) -> Self:
        """What `as_json` wrote; ValueError or TypeError for anything else."""
        if not all(isinstance(item, list) for item in content) or not content:
            return cls.exactly(_sizes(content))
        least, best, most = (_sizes(item) for item in content)
        return cls(least=least, best=best, most=most)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Everything that decides the content of one stage's plan, and nothing else."""

    model: str
    weights: Mapping[str, str]  # file -> sha256
    stage: str
    onnx: str  # sha256 of the graph and of the data beside it
    shapes: Mapping[str, InputShape]  # by input
    precision: str
    backend: str
    backend_version: str
    targets: tuple[int, ...]  # compute capabilities as 89, 120; empty for the CPU
    flags: Mapping[str, str]  # what the builder is asked for, and what it depends on
    recipe: int  # of our builder: raised when the same request would give another plan

    def __post_init__(self) -> None:
        if list(self.targets) != sorted(set(self.targets)):
            raise ValueError(f"targets {self.targets} must ascend")

    def as_json(self) -> dict[str, Any]:
        """The form that is hashed and written to manifests."""
        return {
            "model": self.model,
            "weights": dict(self.weights),
            "stage": self.stage,
            "onnx": self.onnx,
            "shapes": {name: shape.as_json() for name, shape in self.shapes.items()},
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
        shapes = {name: InputShape.from_json(s) for name, s in content["shapes"].items()}
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
        return "-".join((*parts, self.digest[:DIGEST_LETTERS]))


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
