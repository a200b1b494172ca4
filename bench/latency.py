"""How fast a model runs here: in fresh processes, beside others, and only if it is right.

For every profile the networks are first compared with the plain ones; if they differ, nothing is
timed. Then every row (a way, a profile, a clip) gets a process in turn, three rounds at least, so
that what disturbs the machine disturbs all of them. Each process restores the clip twice: cold, and
then steady. Rounds go on while a row's processes lie further apart than 5 %, within the time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vr_trt.bench.ceilings import measured
from vr_trt.bench.gpu import describe_gpu
from vr_trt.bench.latency_clips import DEMO, make_clip
from vr_trt.bench.latency_process import Measured, ask, measure
from vr_trt.bench.latency_summary import summarise
from vr_trt.bench.latency_worker import COMPILED, OURS, TORCH, Job
from vr_trt.bench.machine import describe
from vr_trt.bench.roofline import Ceilings, Work
from vr_trt.bench.run_statistics import LEAST_RUNS, MOST_TIMES, settled
from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import ModelError, UsageError

SCHEMA = 1
FRAMES = 37  # of the demo clip: two windows of a generator, neither of them slid back
Checker = Callable[[Job], dict[str, Any]]
Measurer = Callable[[Job], Measured]
Said = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to time."""

    profiles: Sequence[str] = ("360p",)
    model: str = "nano"
    backend: str = "auto"
    precision: str | None = None
    runs: int = LEAST_RUNS  # processes of every row, at least
    against: Sequence[str] = ()  # torch, torch-compile, folders of adapters
    clips: Sequence[str] = (DEMO,)
    frames: int = FRAMES
    seconds: float = 600.0  # begin no further round after that

    def __post_init__(self) -> None:
        if self.runs < LEAST_RUNS:
            raise UsageError(f"{self.runs} runs tell nothing of the spread: give {LEAST_RUNS}")
        for way in self.against:
            if way in (TORCH, COMPILED):
                if not find_spec("torch"):
                    raise UsageError(f"--against {way} needs PyTorch: pip install 'vr-trt[export]'")
            elif not Path(way, "adapter.py").is_file():
                raise UsageError(
                    f"--against {way}: neither {TORCH}, {COMPILED} nor a folder with an adapter.py"
                )

    def job(self, profile: str, clip: Path, work: Path, way: str = OURS) -> Job:
        """What a process does for this request."""
        return Job(
            way=way,
            clip=str(clip),
            work=str(work),
            profile=profile,
            model=self.model,
            backend=self.backend,
            precision=self.precision,
        )


@dataclass(kw_only=True, slots=True)
class Entry:
    """One row under way."""

    job: Job
    clip: str  # its name
    processes: list[Measured] = field(default_factory=list)
    failed: str = ""  # why, of another's

    @property
    def done(self) -> bool:
        """Whether more processes would tell no more."""
        return bool(self.failed) or settled([one.fps for one in self.processes])


def run(request: Request, said: Said = lambda line: None) -> dict[str, Any]:
    """Check, time, and return the document; ModelError where a check fails: nothing is timed."""
    begun, load = time.monotonic(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="vr-trt-bench-") as name:
        folder = Path(name)
        clips = {clip: make_clip(clip, folder, request.frames) for clip in request.clips}
        entries = _entries(request, clips, folder)
        checks = check_all(request, next(iter(clips.values())), folder, _asked, said)
        work = {profile: found.pop("work") for profile, found in checks.items()}
        on_gpu = present_gpu() is not None
        ceilings, how = measured("cuda" if on_gpu else "cpu") or (None, "")
        time_rounds(entries, request, measure, said, begun)
    return {
        "schema": SCHEMA,
        "kind": "latency",
        "machine": describe() | {"gpu": describe_gpu("cuda") if on_gpu else None},
        "load_before": load,
        "command": command(request),
        "model": Path(request.model).name,
        "checks": checks,
        "ceilings": None if ceilings is None else asdict(ceilings) | {"how": how},
        "rows": [_row(entry, work[entry.job.profile], ceilings) for entry in entries],
        "seconds": round(time.monotonic() - begun, 1),
    }


def check_all(
    request: Request, clip: Path, folder: Path, check: Checker, said: Said
) -> dict[str, Any]:
    """Each profile's verdict; ModelError for one that is wrong, with what is."""
    checks = {}
    for profile in request.profiles:
        found = check(request.job(profile, clip, folder))
        checks[profile] = found
        if found["state"] == "wrong":
            errors = ", ".join(f"{n} by {found['errors'][n]}" for n in found["wrong"])
            raise ModelError(
                f"{request.model} at {profile} is wrong, nothing was timed: it differs from "
                f"{found['against']} ({errors}; {found['limit']} is allowed): build it again"
            )
        said(f"{profile}: {found['state']}{': ' + found['why'] if 'why' in found else ''}")
    return checks


def time_rounds(
    entries: Sequence[Entry], request: Request, measure: Measurer, said: Said, begun: float
) -> None:
    """Rounds of one process a row; after `runs` of them only rows that did not settle go on."""
    longest = 0.0
    for number in range(MOST_TIMES * request.runs):
        waiting = [e for e in entries if not e.failed and (number < request.runs or not e.done)]
        left = request.seconds - (time.monotonic() - begun)
        if not waiting or (number >= request.runs and left < longest):
            return
        start = time.monotonic()
        for entry in waiting:
            _time(entry, measure)
            said(_line(entry))
        longest = max(longest, time.monotonic() - start)


def _time(entry: Entry, measure: Measurer) -> None:
    try:
        entry.processes.append(measure(entry.job))
    except ModelError as error:
        if entry.job.way == OURS:
            raise
        entry.failed = str(error)


def _line(entry: Entry) -> str:
    name = f"{Path(entry.job.way).name}, {entry.job.profile}, {Path(entry.clip).name}"
    if entry.failed:
        return f"{name}: failed: {entry.failed}"
    last = entry.processes[-1]
    return f"{name}: {last.fps:.3f} frames/s, first frame after {last.cold:.1f} s"


def _entries(request: Request, clips: Mapping[str, Path], folder: Path) -> list[Entry]:
    """Our rows for every profile and clip, the others' for the first clip."""
    entries = []
    for profile in request.profiles:
        for place, (name, path) in enumerate(clips.items()):
            ways = (OURS, *request.against) if place == 0 else (OURS,)
            entries += [
                Entry(job=request.job(profile, path, folder, way), clip=name) for way in ways
            ]
    return entries


def _asked(job: Job) -> dict[str, Any]:
    return ask(job.command_of("vr_trt.bench.latency_check"))


def _row(entry: Entry, work: Mapping[str, Any], ceilings: Ceilings | None) -> dict[str, Any]:
    job = entry.job
    about = {"way": Path(job.way).name, "profile": job.profile, "clip": Path(entry.clip).name}
    if entry.failed:
        return about | {"failed": entry.failed}
    counted = {name: Work(**each) for name, each in work.items()}
    ours = job.way == OURS
    return about | summarise(entry.processes, counted if ours else {}, ceilings)


def command(request: Request) -> str:
    """The command line that asks for this; of files and folders the names alone."""
    words = ["vr-trt", "bench", "latency", "--model", Path(request.model).name]
    for option, values in (
        ("--profile", request.profiles),
        ("--clip", [Path(clip).name for clip in request.clips]),
        ("--against", [Path(way).name for way in request.against]),
    ):
        words += [word for value in values for word in (option, value)]
    if request.backend != "auto":
        words += ["--backend", request.backend]
    if request.precision:
        words += ["--precision", request.precision]
    words += ["--frames", str(request.frames), "--runs", str(request.runs)]
    return " ".join(words)
