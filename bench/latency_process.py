"""One fresh process of the benchmark: how it is started and watched, and what it reported."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vr_trt.bench.ceilings import with_threads
from vr_trt.bench.latency_trace import Calls, read_trace
from vr_trt.bench.latency_worker import Job
from vr_trt.bench.nvml import Watch, device_use, library
from vr_trt.errors import ModelError
from vr_trt.runtime.onnxruntime_session import usable_cores

WORKER = "vr_trt.bench.latency_worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One process; seconds."""

    frames: int
    engines: str
    cold: float  # from the process's start to the first frame written
    steady: float  # the second pass, from opening the clip to the finished file
    cpu_busy: float  # of all cores, in the second pass
    peak_host_mib: float
    calls: Calls  # of the second pass
    device: dict[str, float]  # what NVML counted

    @property
    def fps(self) -> float:
        """Frames a second of the second pass."""
        return self.frames / self.steady


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
    started: float
    lines: list[str]
    peak_host_mib: float
    watch: Watch


def measure(job: Job) -> Measured:
    """Run `job` in a process of its own; ModelError with its last word where it fails."""
    with tempfile.TemporaryDirectory(dir=job.work) as folder:
        ended = _run(replace(job, work=folder).command_of(WORKER))
        cold, warm = json.loads(ended.lines[-1])
        first, second = (read_trace(Path(one["trace"])) for one in (cold, warm))
    steady = warm["ended"] - warm["began"]
    return Measured(
        frames=warm["frames"],
        engines=warm["engines"],
        cold=cold["ended"] - first.first_to_end - ended.started,
        steady=steady,
        cpu_busy=warm["cpu_seconds"] / steady / usable_cores(),
        peak_host_mib=ended.peak_host_mib,
        calls=second,
        device=device_use(ended.watch.samples, (warm["began"], warm["ended"]), warm["frames"]),
    )


def ask(command: Sequence[str]) -> dict[str, Any]:
    """The JSON that a helping process prints last; ModelError where it fails."""
    answer: dict[str, Any] = json.loads(_run(command).lines[-1])
    return answer


def _run(command: Sequence[str]) -> _Ended:
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors, Watch(library()) as watch:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=with_threads(usable_cores()),
        )
        try:
            assert child.stdout is not None
            lines = child.stdout.read().splitlines()
            _, status, usage = os.wait4(child.pid, 0)  # waits here, for its usage
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            child.kill()
            child.wait()
            raise
        errors.seek(0)
        words = [line for line in errors.read().splitlines() if line.strip()]
    if child.returncode or not lines:
        last = words[-1] if words else f"exit code {child.returncode}"
        raise ModelError(last.removeprefix("vr-trt: "))
    return _Ended(started=started, lines=lines, peak_host_mib=usage.ru_maxrss / 1024, watch=watch)
