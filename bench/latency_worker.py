"""The process that is timed: a clip through one way, cold and then warm.

    python -m vr_trt.bench.latency_worker JOB

JOB is a `Job` as JSON. The last line of standard output tells the passes; their traces lie in the
job's folder.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PASSES = 2  # the first is cold, the second is steady
OURS, TORCH, COMPILED = "vr-trt", "torch", "torch-compile"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process does."""

    way: str  # OURS, TORCH, COMPILED, or the folder of an adapter
    clip: str
    work: str  # a folder for outputs and traces
    profile: str
    model: str
    backend: str
    precision: str | None

    def command_of(self, module: str) -> list[str]:
        """A process of `module` that gets this job."""
        return [sys.executable, "-m", module, json.dumps(asdict(self))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Once:
    """What one pass made."""

    frames: int
    engines: str


Run = Callable[[Path, Path], Once]  # into a file, and its trace


def main(arguments: list[str]) -> None:
    """Do the job."""
    job = Job(**json.loads(arguments[0]))
    run = _ours(job) if job.way == OURS else _adapter(job)
    passes = []
    for number in range(PASSES):
        trace = Path(job.work, f"trace-{number}.json")
        began, cpu = time.monotonic(), time.process_time()
        done = run(Path(job.work, f"restored-{number}.mp4"), trace)
        ended = time.monotonic()
        passes.append(
            {
                "began": began,
                "ended": ended,
                "cpu_seconds": time.process_time() - cpu,
                "trace": str(trace),
                **asdict(done),
            }
        )
    print(json.dumps(passes))


def _ours(job: Job) -> Run:
    from vr_trt.runtime.restorer import Restorer
    from vr_trt.runtime.run_options import RunOptions

    restorer = Restorer(
        model=job.model, profile=job.profile, backend=job.backend, precision=job.precision
    )

    def run(target: Path, trace: Path) -> Once:
        report = restorer.restore(job.clip, target, options=RunOptions(trace=trace))
        return Once(frames=report.frames, engines=report.engines)

    return run


def _adapter(job: Job) -> Run:
    from vr_trt.bench.adapter import restore_with
    from vr_trt.engines.profiles import find_profile
    from vr_trt.runtime.stage_trace import tracing

    adapter = _opened(job)
    adapter.load()
    side = find_profile(job.profile).short_side

    def run(target: Path, trace: Path) -> Once:
        with tracing(trace):
            frames = restore_with(adapter, Path(job.clip), target, side)
        return Once(frames=frames, engines=Path(job.way).name)

    return run


def _opened(job: Job) -> Any:
    if job.way not in (TORCH, COMPILED):
        from vr_trt.bench.adapter import open_adapter

        return open_adapter(Path(job.way))
    from vr_trt.bench.plain_networks import TorchWay

    return TorchWay(job.model, compiled=job.way == COMPILED)


if __name__ == "__main__":
    from vr_trt.errors import VrTrtError

    try:
        main(sys.argv[1:])
    except VrTrtError as error:
        sys.exit(f"vr-trt: {error}")
