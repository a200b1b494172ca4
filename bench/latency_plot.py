"""The plot of `vr-trt bench latency`: where the time goes, and how near the roof each stage is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vr_trt.bench.latency_worker import OURS

Row = Mapping[str, Any]
_SMALLEST = 0.01  # of the largest bar: what is less has no name in the legend


def plot(document: Row, path: Path) -> None:
    """Write it as the suffix of `path` says (.png, .svg, .pdf)."""
    rows = [row for row in document["rows"] if "failed" not in row]
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _breakdown(left, rows)
    _roofline(right, document, [row for row in rows if row["way"] == OURS])
    machine = document["machine"]
    figure.suptitle(f"{document['model']}: {machine['processor']}, {machine['cores']} cores")
    figure.savefig(path, dpi=120)


def _breakdown(axes: Axes, rows: list[Row]) -> None:
    """Seconds a frame of every stage, one bar a row; what overlaps stands on top of each other."""
    names = [f"{row['way']}\n{row['profile']}, {row['clip']}" for row in rows]
    largest = max(row["steady_seconds"] / row["frames"] for row in rows)
    bottoms = [0.0] * len(rows)
    # A rival's `restore` holds its stages; it has the bar only where it names none.
    for stage in dict.fromkeys(name for row in rows for name in row["stages"]):
        heights = [_seconds(row, stage) / row["frames"] for row in rows]
        shown = max(heights) > _SMALLEST * largest
        axes.bar(names, heights, 0.6, bottoms, label=stage if shown else None)
        bottoms = [b + h for b, h in zip(bottoms, heights, strict=True)]
    whole = [row["steady_seconds"] / row["frames"] for row in rows]
    axes.plot(names, whole, "k_", markersize=40, label="end to end")
    axes.set_ylabel("seconds a frame")
    axes.legend(fontsize="small")


def _seconds(row: Row, stage: str) -> float:
    stages = row["stages"]
    if stage == "restore" and "generator" in stages and row["way"] != OURS:
        return 0.0
    return float(stages[stage]["seconds"]) if stage in stages else 0.0


def _roofline(axes: Axes, document: Row, rows: list[Row]) -> None:
    """Operations a second by operations a byte, under the two measured ceilings."""
    ceilings = document["ceilings"]
    points = [
        (f"{name}, {row['profile']}", stage)
        for row in rows[:1]
        for name, stage in row["stages"].items()
        if "flops" in stage
    ]
    if not ceilings or not points:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no roofline: the work was not counted", ha="center")
        return
    for name, stage in points:
        axes.loglog(stage["flops"] / stage["bytes"], stage["flops"] / stage["p50"], "o", label=name)
    ridge = ceilings["flops"] / ceilings["bytes"]
    low, high = ridge / 20, 20 * max(s["flops"] / s["bytes"] for _, s in points)
    roof = [low * ceilings["bytes"], ceilings["flops"], ceilings["flops"]]
    axes.loglog([low, ridge, high], roof, "k-")
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("operations a second")
    axes.legend(fontsize="x-small")
