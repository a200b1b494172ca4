"""The engines that were built: folders named by what decided their content.

<cache>/engines/<stage>-<model>-<precision>-<backend>-<targets>-<digest>/
    plan            and what the backend keeps beside it
    manifest.json   the spec, every file's hash, how it was built
    build.log       what the backend's library said
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import vr_trt
from vr_trt.engines.builder import LOG, PLAN
from vr_trt.engines.gate import refusal
from vr_trt.engines.spec import Change, EngineSpec, difference
from vr_trt.engines.store import Store, cache_folder, folder_bytes
from vr_trt.errors import ModelError
from vr_trt.export.weights_hashes import hash_file
from vr_trt.kernels.detail import PUBLISHED_DETAIL

MANIFEST = "manifest.json"
FORMAT = 1
State = Literal["ok", "stale", "damaged", "foreign", "leftover"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """The sizes that the stages of one profile are built for."""

    width: int  # pixels, padded
    height: int
    latents: int  # of a generator window
    step: int  # latents of a VAE step

    @property
    def area(self) -> int:
        """Pixels."""
        return self.width * self.height

    def holds(self, other: "Canvas") -> bool:
        """Whether a picture of `other` can be padded to this one and run in equal windows."""
        fits = self.width >= other.width and self.height >= other.height
        return fits and (self.latents, self.step) == (other.latents, other.step)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a manifest says of an engine beside its spec; none of it decides the content."""

    source: str  # the model as it was asked for: a name or a folder
    profile: str
    canvas: Canvas
    cut: bool = False  # the VAE by resolution
    options: Mapping[str, str] = field(default_factory=dict)  # the builder's, as asked for
    seconds: Mapping[str, float] = field(default_factory=dict)  # of the build, by step
    peak_bytes: int = 0  # of host memory
    estimated_bytes: int = 0  # what the law said before
    facts: Mapping[str, Any] = field(default_factory=dict)  # the builder's own
    gate: Mapping[str, Any] | None = None  # of fp8: the verdict, see `vr_trt.engines.gate`
    detail: Sequence[float] = PUBLISHED_DETAIL  # the model's, see `vr_trt.kernels.detail`
    made: str = ""  # UTC
    made_by: str = vr_trt.__version__


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A finished folder of the cache, as its manifest describes it."""

    folder: Path
    spec: EngineSpec
    about: About
    files: Mapping[str, str]  # file -> sha256

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def plan(self) -> Path:
        return self.folder / PLAN

    @property
    def refusal(self) -> str:
        """Why nothing may run on it; "" for an engine that is offered."""
        if self.spec.precision != "fp8":
            return ""
        return refusal(self.about.gate, self.spec.model)

    @property
    def bytes(self) -> int:
        return folder_bytes(self.folder)

    @property
    def used(self) -> float:
        """When it was last built or opened, in seconds since 1970."""
        return (self.folder / MANIFEST).stat().st_mtime

    @property
    def built(self) -> float:
        """When it was built, in seconds since 1970."""
        return datetime.fromisoformat(self.about.made).timestamp()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The engine in `folder`; ModelError names what is wrong with its manifest."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, expected {FORMAT}")
            about = dict(content["about"])
            engine = cls(
                folder=folder,
                spec=EngineSpec.from_json(content["spec"]),
                about=About(**{**about, "canvas": Canvas(**about["canvas"])}),
                files=dict(content["files"]),
            )
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path} is not an engine's manifest ({type(error).__name__}: {error}): remove "
                f"the folder with `vr-trt engines prune`"
            ) from None
        if engine.spec.folder_name != folder.name or PLAN not in engine.files:
            raise ModelError(
                f"{folder} is foreign: its manifest describes {engine.spec.folder_name}; "
                "remove it with `vr-trt engines prune` and build again"
            )
        return engine

    def write(self) -> None:
        """Write the manifest into the folder."""
        content = {
            "format": FORMAT,
            "digest": self.spec.digest,
            "spec": self.spec.as_json(),
            "about": asdict(self.about),
            "files": dict(self.files),
        }
        text = json.dumps(content, indent=1) + "\n"
        partial = self.folder / f".{MANIFEST}"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.folder / MANIFEST)  # in one step: others may read it

    def check(self) -> None:
        """Read every file; ModelError names the first that is missing or has changed."""
        for name, expected in self.files.items():
            path = self.folder / name
            if Path(name).name != name or not path.is_file():
                raise ModelError(f"{path} is missing: build the engine again")
            if (found := hash_file(path)) != expected:
                raise ModelError(
                    f"{path} is damaged or foreign (sha256 {found[:12]}…, expected "
                    f"{expected[:12]}…): build the engine again"
                )

    def mark_used(self) -> None:
        """Note that the engine was opened now, so that `prune` keeps it; no matter if it cannot."""
        with suppress(OSError):  # a cache that is shared and read-only is a good cache
            os.utime(self.folder / MANIFEST)


class EngineCache:
    """The engines below a cache folder."""

    def __init__(self, cache: Path | None = None) -> None:
        self.store = Store((cache or cache_folder()) / "engines")

    def engines(self) -> Iterator[Engine]:
        """Every engine with a sound manifest; plans are not read."""
        for name in self.store.names():
            with suppress(ModelError):  # told by `findings`
                yield Engine.read(self.store.path(name))

    def find(self, spec: EngineSpec) -> Engine | None:
        """The engine of `spec`, if it was built; ModelError if it is damaged."""
        folder = self.store.path(spec.folder_name)
        if not folder.is_dir():
            return None
        engine = Engine.read(folder)
        if difference(engine.spec, spec):
            raise ModelError(f"{folder} is foreign: it has another spec with the same digest")
        engine.check()
        return engine

    def nearest(self, spec: EngineSpec, profile: str) -> tuple[Engine, list[Change]] | None:
        """The engine that an earlier request of the same kind built, and what has changed."""
        alike = [
            (engine, difference(engine.spec, spec))
            for engine in self.engines()
            if engine.spec.stage == spec.stage
            and engine.spec.model == spec.model
            and engine.spec.backend == spec.backend
            and engine.about.profile == profile
        ]
        return min(alike, key=lambda pair: (len(pair[1]), -pair[0].used), default=None)


def seal(folder: Path, spec: EngineSpec, about: About) -> Engine:
    """Describe the files that a build left in `folder`, all of them, in its manifest."""
    hashes = {p.name: hash_file(p) for p in sorted(folder.iterdir()) if p.name != LOG}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    engine = Engine(folder=folder, spec=spec, about=replace(about, made=made), files=hashes)
    engine.write()
    return engine
