"""Which files a batch restores, and how: a folder, a list of paths, or JSON lines."""

import json
import types
import typing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vr_trt.errors import UsageError
from vr_trt.runtime.pixel_stages import Correction
from vr_trt.runtime.publish import IMAGE_CODECS
from vr_trt.runtime.video_codecs import Encoding, usual_suffix

_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"}
    | {".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".mxf", ".ogv", ".divx", ".dv"}
    | {".m2v", ".mod", ".tod", ".y4m", *IMAGE_CODECS}
)  # of files in a folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """How a file is restored: the options of `run` by their names, and keys of a JSON line."""

    model: str = "nano"
    profile: str = "720p"
    backend: str = "auto"
    precision: str | None = None
    card_memory: float | None = None
    seed: int = 0
    color: Correction = "wavelet"
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    bitrate: int | None = None
    bits: int | None = None
    range: str = ""
    cuts: str = "auto"
    rate: str = ""
    deinterlace: str | None = None

    @property
    def encoding(self) -> Encoding:
        """What is asked of the encoder. UsageError for what no encoder does."""
        return Encoding(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            bitrate=self.bitrate,
            bits=self.bits,
        )


_KINDS: dict[str, Any] = {field.name: field.type for field in fields(Asked)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One file."""

    number: int  # in the manifest, from 0
    input: Path
    output: Path
    asked: Asked


def make_asked(**values: Any) -> Asked:
    """The settings by name. UsageError for a value that its name does not take."""
    for name, value in values.items():
        if not _fits(value, _KINDS[name]):
            raise UsageError(f"{name} cannot be {value!r}{_choices(_KINDS[name])}")
    return Asked(**values)


def read_manifest_jobs(manifest: Path, asked: Asked, folder: Path | None) -> list[Job]:
    """The jobs. Where a line names no output, it goes into `folder`, or beside the input.

    UsageError names the line that is wrong, and outputs that two inputs would share.
    """
    if manifest.is_dir():
        lines = [
            ("", {"input": str(path.resolve())})
            for path in sorted(manifest.iterdir())
            if path.suffix.lower() in _SUFFIXES
            and not path.name.startswith(".")
            and not path.stem.endswith(".restored")
        ]
    else:
        lines = _lines(manifest)
    if not lines:
        raise UsageError(f"{manifest} names no file to restore")
    jobs = [
        _job(number, where, values, (manifest, asked, folder))
        for number, (where, values) in enumerate(lines)
    ]
    seen: dict[Path, Path] = {}
    for job in jobs:
        if (other := seen.setdefault(job.output.resolve(), job.input)) != job.input:
            raise UsageError(f"{other} and {job.input} would both become {job.output}")
    return jobs


def _lines(manifest: Path) -> list[tuple[str, dict[str, Any]]]:
    """What each line says, and where it stands."""
    try:
        text = manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the manifest {manifest} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line, where = line.strip(), f"{manifest}, line {number}: "
        if not line or line.startswith("#"):
            continue
        values: Any = {"input": line}
        if manifest.suffix.lower() in (".jsonl", ".ndjson"):
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{where}{error}") from None
            if not isinstance(values, dict) or not isinstance(values.get("input"), str):
                raise UsageError(f'{where}write an object with an "input"')
        found.append((where, values))
    return found


def _job(
    number: int, where: str, values: dict[str, Any], given: tuple[Path, Asked, Path | None]
) -> Job:
    manifest, asked, folder = given
    chosen = {name: value for name, value in values.items() if name not in ("input", "output")}
    for name, value in chosen.items():
        if name not in _KINDS:
            raise UsageError(f"{where}unknown key {name!r}: choose among {', '.join(_KINDS)}")
        if not _fits(value, _KINDS[name]):
            raise UsageError(f"{where}{name} cannot be {value!r}{_choices(_KINDS[name])}")
    source = manifest.parent / _path(values["input"], where)
    output = values.get("output")
    if output is not None and (not isinstance(output, str) or "\0" in output):
        raise UsageError(f"{where}output cannot be {output!r}")
    suffix = source.suffix.lower()
    if suffix not in IMAGE_CODECS:
        suffix = usual_suffix(source, chosen.get("codec", asked.codec))
    if output is not None:
        target = (folder or manifest.parent) / output
    elif folder is not None:
        target = folder / f"{source.stem}{suffix}"
    else:
        target = source.with_name(f"{source.stem}.restored{suffix}")
    return Job(number=number, input=source, output=target, asked=replace(asked, **chosen))


def _path(text: str, where: str) -> Path:
    """The path of an input. UsageError for what cannot be one."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~somebody, whom nobody knows
        raise UsageError(f"{where}{text!r} names a user without a home folder") from None
    if "\0" in text or not path.name:
        raise UsageError(f"{where}{text!r} is not the path of a file")
    return path


def _fits(value: object, kind: Any) -> bool:
    """Whether a value of JSON is of a field's type."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _choices(kind: Any) -> str:
    if typing.get_origin(kind) is not typing.Literal:
        return ""
    return f": choose one of {', '.join(typing.get_args(kind))}"
