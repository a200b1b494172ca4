"""The plot of `vr-trt bench latency`: where the time goes, and how near the roof each stage is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vr_trt.bench.latency_worker import OURS

Row = Mapping[str, Any]
_SMALLEST = 0.01  # of the largest bar: what is less has no name in the legend
_COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]  # which the stubs do not know


def plot(document: Row, path: Path) -> None:
    """Write it as the suffix of `path` says (.png, .svg, .pdf)."""
    rows = [row for row in document["rows"] if "failed" not in row]
    stages = dict.fromkeys(name for row in rows for name in row["stages"])
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(stages)}
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _breakdown(left, rows, colours)
    _roofline(right, document, colours)
    machine = document["machine"]
    figure.suptitle(f"{document['model']}: {machine['processor']}, {machine['cores']} cores")
    figure.savefig(path, dpi=120)


def _breakdown(axes: Axes, rows: list[Row], colours: Mapping[str, Any]) -> None:
    """Seconds a frame of every stage, one bar a row; what overlaps stands on top of each other."""
    names = [f"{row['way']}\n{row['profile']}, {row['clip']}" for row in rows]
    largest = max(row["steady_seconds"] / row["frames"] for row in rows)
    bottoms = [0.0] * len(rows)
    # A rival's `restore` holds its stages; it has the bar only where it names none.
    for stage, colour in colours.items():
        heights = [_seconds(row, stage) / row["frames"] for row in rows]
        shown = max(heights) > _SMALLEST * largest
        label = stage if shown else None
        axes.bar(names, heights, 0.6, bottoms, color=colour, label=label)
        bottoms = [b + h for b, h in zip(bottoms, heights, strict=True)]
    whole = [row["steady_seconds"] / row["frames"] for row in rows]
    axes.plot(names, whole, "kD", markersize=5, label="end to end")
    axes.set_ylabel("seconds a frame")
    axes.legend(fontsize="small")


def _seconds(row: Row, stage: str) -> float:
    stages = row["stages"]
    if stage == "restore" and "generator" in stages and row["way"] != OURS:
        return 0.0
    return float(stages[stage]["seconds"]) if stage in stages else 0.0


def _roofline(axes: Axes, document: Row, colours: Mapping[str, Any]) -> None:
    """Operations a second by operations a byte, under the measured ceilings: our first row's."""
    ceilings = document["ceilings"]
    ours = next((r for r in document["rows"] if r["way"] == OURS and "stages" in r), None)
    stages = ours["stages"].items() if ours else ()
    points = [(name, stage) for name, stage in stages if "flops" in stage]
    if not ceilings or not points:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no roofline: the work was not counted", ha="center")
        return
    for name, stage in points:
        place = stage["flops"] / stage["bytes"], stage["flops"] / stage["p50"]
        axes.loglog(*place, "o", color=colours[name], label=name)
    ridge = ceilings["flops"] / ceilings["bytes"]
    low, high = ridge / 20, 20 * max(s["flops"] / s["bytes"] for _, s in points)
    roof = [low * ceilings["bytes"], ceilings["flops"], ceilings["flops"]]
    axes.loglog([low, ridge, high], roof, "k-")
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("operations a second")
    axes.legend(fontsize="x-small")
