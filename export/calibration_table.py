"""The table of a calibration: how large the inputs of a generator's linears get.

It is a small JSON file for people beside the generator's weights, made once and reused. Inputs are
named by layer and by whose tokens they are: `blocks.7.text.qkv` may go through the weights of
`blocks.7.video.qkv`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from vr_trt.errors import ModelError, UsageError
from vr_trt.export.weights_hashes import hash_file

FORMAT = 1
RECIPE = 1  # of `fp8`: raised when the same weights and table would give other numbers
Method = Literal["amax", "percentile", "mse"]
REMEDY = "make one with `vr-trt calibrate CLIP… --model MODEL`"


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationTable:
    """What was measured, on what."""

    model: str
    weights: str  # sha256 of the generator's file
    method: Method
    clips: tuple[str, ...]
    windows: int  # of the generator, that were looked at
    amax: Mapping[str, float]  # input of a linear -> the magnitude that is to be E4M3's largest
    wide: tuple[str, ...] = ()  # linears that are too sensitive for E4M3

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method {self.method!r} is none of {', '.join(get_args(Method))}")
        wrong = [name for name, value in self.amax.items() if not 0 <= value < float("inf")]
        if wrong or not self.amax:
            raise ValueError(f"no magnitude of {wrong[0] if wrong else 'any input'}")

    def write(self, path: Path) -> None:
        """Write the table to `path`, in one step."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The table in `path`; ModelError where there is none or it is not one."""
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            if unknown := content.keys() - {field.name for field in fields(cls)}:
                raise ValueError(f"unknown {', '.join(sorted(unknown))}")
            lists = {name: tuple(content[name]) for name in ("clips", "wide")}
            return cls(**{**content, **lists})
        except FileNotFoundError:
            raise ModelError(f"there is no calibration table {path}: {REMEDY}") from None
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is no calibration table ({error}): {REMEDY}") from None

    def check(self, weights: str, path: Path) -> None:
        """ModelError unless the table, from `path`, is of the weights with that sha256."""
        if self.weights != weights:
            raise ModelError(
                f"{path} calibrates other weights of {self.model} ({self.weights[:12]}…, and these "
                f"are {weights[:12]}…): {REMEDY}"
            )


def check_method(name: str) -> Method:
    """`name` itself; UsageError lists the methods there are."""
    for method in get_args(Method):
        if name == method:
            return cast(Method, method)
    raise UsageError(f"unknown method {name!r}: choose one of {', '.join(get_args(Method))}")


def table_path(generator_file: Path) -> Path:
    """Where the table of a generator's weights lies."""
    return generator_file.with_suffix(".fp8.json")


def gate_path(table: Path) -> Path:
    """Where the gate's verdict on a table lies (see `vr_trt.engines.gate`)."""
    return table.with_name(f"{table.stem}-gate.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A table that was found to be of the weights, and what the gate said of it."""

    table: CalibrationTable
    sha256: str  # of the table's file
    gate: Mapping[str, Any] | None  # None: not measured yet

    def as_json(self) -> dict[str, Any]:
        """For the manifest of the quantised graphs."""
        table = self.table
        return {
            "calibration": self.sha256,
            "method": table.method,
            "wide": list(table.wide),
            "gate": self.gate and dict(self.gate),
        }


def find_calibration(generator_file: Path, weights: str, table: Path | None = None) -> Calibration:
    """The table beside `generator_file`, or `table`; `weights` is that file's sha256.

    ModelError where there is none, or it is of other weights.
    """
    path = table or table_path(generator_file)
    found = CalibrationTable.read(path)
    found.check(weights, path)
    digest = hash_file(path)
    return Calibration(table=found, sha256=digest, gate=_verdict(gate_path(path), digest))


def _verdict(path: Path, calibration: str) -> Mapping[str, Any] | None:
    """The gate's file, if it is about this table and the numbers of this version."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no verdict of the gate ({error}): {REMEDY}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no verdict of the gate: {REMEDY}")
    wanted = {"calibration": calibration, "recipe": RECIPE}
    return content if wanted.items() <= content.items() else None
