"""What several processes of one row say together: medians, percentiles, shares of the roofline."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from vr_trt.bench.latency_process import Measured
from vr_trt.bench.roofline import Ceilings, Work
from vr_trt.bench.run_statistics import percentiles, settled, spread

Row = dict[str, Any]


def summarise(
    processes: Sequence[Measured],
    work: Mapping[str, Work] | None = None,
    ceilings: Ceilings | None = None,
) -> Row:
    """The figures of one row: medians over the processes, percentiles over all of their calls."""
    fps = [one.fps for one in processes]
    work = work or {}
    floors = _floors(work, ceilings)
    row: Row = {
        "engines": processes[0].engines,
        "frames": processes[0].frames,
        "processes": len(processes),
        "fps": median(fps),
        "fps_each": fps,
        "spread": spread(fps),
        "settled": settled(fps),
        "cold_seconds": median(one.cold for one in processes),
        "steady_seconds": median(one.steady for one in processes),
        "cpu_busy": median(one.cpu_busy for one in processes),
        "peak_host_mib": max(one.peak_host_mib for one in processes),
        "frame_seconds": percentiles([each for one in processes for each in one.calls.frames]),
        "stages": {
            name: _stage(name, processes, work.get(name), floors)
            for name in processes[0].calls.stages
        },
    }
    for name in ("peak_device_mib", "gpu_busy", "joules_per_frame"):
        found = [one.device[name] for one in processes if name in one.device]
        row[name] = median(found) if found else None
    shares = [_of_floor(one, floors) for one in processes] if floors else []
    row["of_floor"] = median(shares) if shares else None
    return row


def _floors(work: Mapping[str, Work], ceilings: Ceilings | None) -> dict[str, float]:
    if ceilings is None:
        return {}
    return {name: stage.floor(ceilings)[0] for name, stage in work.items()}


def _stage(
    name: str,
    processes: Sequence[Measured],
    work: Work | None,
    floors: Mapping[str, float],
) -> Row:
    calls = [seconds for one in processes for seconds in one.calls.stages[name]]
    row: Row = {
        "calls": len(processes[0].calls.stages[name]),
        "seconds": median(sum(one.calls.stages[name]) for one in processes),
        **percentiles(calls),
    }
    if work is not None:
        row |= asdict(work)
    if name in floors:
        row["floor_seconds"] = floors[name]
        row["of_floor"] = floors[name] / row["p50"]
    return row


def _of_floor(one: Measured, floors: Mapping[str, float]) -> float:
    """The floors of all calls of a process by the seconds of the whole pass."""
    calls = {name: len(seconds) for name, seconds in one.calls.stages.items()}
    return sum(floors.get(name, 0.0) * count for name, count in calls.items()) / one.steady
