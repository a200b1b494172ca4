"""What `vr-trt bench latency` found, as tables for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from vr_trt.bench.latency_worker import OURS
from vr_trt.runtime.counted import counted

Row = Mapping[str, Any]
SHARED_LOAD = 0.5  # an idle machine may still show so much of what has just ended
_HEAD = (
    *("way", "profile", "clip", "frames/s", "spread", "first frame", "p50 / p95 / p99 a frame"),
    *("host MiB", "device MiB", "CPU", "GPU", "J/frame", "of floor", "ours"),
)


def show(document: Row, console: Console) -> None:
    """Everything: the rows side by side, then the stages of ours."""
    machine, ceilings = document["machine"], document["ceilings"]
    gpu = f", {machine['gpu']['name']}" if machine["gpu"] else ""
    console.print(
        f"{machine['processor']}, {counted(machine['cores'], 'core')}{gpu}", highlight=False
    )
    if ceilings:
        console.print(
            f"ceilings: {ceilings['flops'] / 1e9:.0f} GFLOP/s, {ceilings['bytes'] / 1e9:.1f} GB/s "
            f"({ceilings['how']})",
            highlight=False,
        )
    for profile, check in document["checks"].items():
        console.print(check_line(profile, check), highlight=False)
    console.print(_rows(document))
    for row in document["rows"]:
        if row["way"] == OURS:
            console.print(_stages(row))
    for line in notes(document):
        console.print(line, highlight=False)


def check_line(profile: str, check: Row) -> str:
    """One profile's verdict in words."""
    if check["state"] != "ok":
        return f"{profile}: NOT CHECKED: {check['why']}"
    errors = ", ".join(f"{name} {error:.1e}" for name, error in check["errors"].items())
    return f"{profile}: right: {errors} from {check['against']} ({check['limit']} is allowed)"


def ratio(document: Row, row: Row) -> float | None:
    """How many times as fast as another way our own row of its profile and clip is."""
    ours = next(
        (
            r["fps"]
            for r in document["rows"]
            if r["way"] == OURS and (r["profile"], r["clip"]) == (row["profile"], row["clip"])
        ),
        None,
    )
    if ours is None or "failed" in row or row["way"] == OURS:
        return None
    return float(ours / row["fps"])


def notes(document: Row) -> Iterator[str]:
    """What a reader must know before believing the figures."""
    for row in document["rows"]:
        name = f"{row['way']}, {row['profile']}, {row['clip']}"
        if "failed" in row:
            yield f"{name}: failed: {row['failed']}"
        elif not row["settled"]:
            yield (
                f"{name}: {row['processes']} processes lie {row['spread']:.0%} apart, more than "
                "5 %: measure on an idle machine"
            )
    load = document["load_before"]
    if load is not None and load > SHARED_LOAD:
        yield f"the machine was shared: its load was {load:.1f} before the first process"


def _rows(document: Row) -> Table:
    table = Table(title="end to end", title_justify="left")
    for name in _HEAD:
        table.add_column(name, justify="left" if name in _HEAD[:3] else "right")
    for row in document["rows"]:
        about = (row["way"], row["profile"], row["clip"])
        if "failed" in row:
            table.add_row(*about, "failed")
            continue
        frame, times = row["frame_seconds"], ratio(document, row)
        table.add_row(
            *about,
            f"{row['fps']:.3f}",
            f"{row['spread']:.1%} of {row['processes']}",
            f"{row['cold_seconds']:.2f} s",
            " / ".join(f"{frame[name]:.2f}" for name in ("p50", "p95", "p99")) + " s",
            f"{row['peak_host_mib']:.0f}",
            number(row["peak_device_mib"], "{:.0f}"),
            f"{row['cpu_busy']:.0%}",
            number(row["gpu_busy"], "{:.0%}"),
            number(row["joules_per_frame"], "{:.1f}"),
            number(row["of_floor"], "{:.0%}"),
            number(times, "{:.2f}x"),
        )
    return table


def _stages(row: Row) -> Table:
    title = f"stages, {row['profile']}, {row['clip']}: {row['engines']}"
    table = Table(title=title, title_justify="left")
    for name in ("stage", "calls", "seconds", "of the pass", "p50 ms", "p95", "p99", "of floor"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, stage in sorted(row["stages"].items(), key=lambda item: -item[1]["seconds"]):
        table.add_row(
            name,
            str(stage["calls"]),
            f"{stage['seconds']:.2f}",
            f"{stage['seconds'] / row['steady_seconds']:.0%}",
            *(f"{1e3 * stage[p]:.1f}" for p in ("p50", "p95", "p99")),
            number(stage.get("of_floor"), "{:.0%}"),
        )
    return table


def number(value: float | None, form: str) -> str:
    """`value` in that form, or nothing where it was not measured."""
    return "" if value is None else form.format(value)
