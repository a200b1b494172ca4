"""The list of published weights: a TOML file, read into dataclasses and checked."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from vr_trt.errors import ModelError

Kind = Literal["generator", "vae", "text"]

SHIPPED = Path(__file__).parent / "embeddings"  # the text files, which come with the package
TABLE = Path(__file__).parent / "weights.toml"
SHA256_DIGITS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """One published file; `sha256` is None where its publisher tells none."""

    name: str
    model: str
    kind: Kind
    repository: str
    filename: str
    gigabytes: float  # 1e9 bytes, rounded
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: kind {self.kind!r} is none of {get_args(Kind)}")
        digits = set(self.sha256 or "") - set("0123456789abcdef")
        if self.sha256 is not None and (digits or len(self.sha256) != SHA256_DIGITS):
            raise ValueError(f"{self.name}: {self.sha256!r} is no sha256 in lower case")

    @property
    def address(self) -> str:
        """Repository and file, under which a hash that nobody publishes is recorded."""
        return f"{self.repository}/{self.filename}"


@cache
def table() -> tuple[WeightsFile, ...]:
    """Every published file we know, in order of preference."""
    return read_table(TABLE.read_text())


def read_table(text: str) -> tuple[WeightsFile, ...]:
    """The files that the TOML `text` lists; ValueError for unknown, missing or doubled keys."""
    listed = tomllib.loads(text)
    if unknown := listed.keys() - {"file"}:
        raise ValueError(f"unknown tables in the list of weights: {sorted(unknown)}")
    files = tuple(_row(row) for row in listed["file"])
    for field in ("name", "filename"):
        values = [getattr(file, field) for file in files]
        if doubled := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"two files of one {field}: {sorted(doubled)}")
    return files


def _row(row: dict[str, Any]) -> WeightsFile:
    known = {field.name for field in fields(WeightsFile)}
    if unknown := row.keys() - known:
        raise ValueError(f"unknown keys in the list of weights: {sorted(unknown)}")
    if missing := known - {"sha256"} - row.keys():
        raise ValueError(f"missing keys in the list of weights: {sorted(missing)} of {row}")
    return WeightsFile(**row)


def find(name: str) -> WeightsFile:
    """The file of this short name or file name; ModelError with all names if there is none."""
    for file in table():
        if name in (file.name, file.filename):
            return file
    names = ", ".join(file.name for file in table())
    raise ModelError(f"No published weights are called {name!r}; there are {names}.")


def wanted(name: str) -> tuple[WeightsFile, ...]:
    """The files meant by `name`: one file, or a model's preferred generator and its VAE."""
    for file in table():
        if file.kind == "generator" and file.model == name:
            vae = next(other for other in table() if other.kind == "vae")
            return file, vae
    return (find(name),)
