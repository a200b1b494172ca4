"""What the kernels' benchmark found, for people to read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vr_trt.bench.case import OURS

Row = Mapping[str, Any]
_HEAD = ("way", "ms", "p20-p80", "TFLOP/s", "GB/s", "of floor", "MiB", "error", "")


def report(document: Row) -> str:
    """Checks that failed, ceilings, and a table per case."""
    return "\n".join(_lines(document))


def _lines(document: Row) -> Iterator[str]:
    yield f"{document['gpu']['name']}, commit {document['machine']['commit'] or 'unknown'}"
    for name, value in document["ceilings"].items():
        yield f"ceiling {name}: {value:.0f}"
    for name, why in document["problems"].items():
        yield f"PROBLEM {name}: {why}"
    for case in document["cases"]:
        yield from _case(case)
    yield _summary(document["cases"])


def _case(case: Row) -> Iterator[str]:
    check = case["check"] or {"state": "no kernel of ours"}
    verdict = check["state"] if check["state"] != "failed" else f"FAILED: {check['why']}"
    floor = f", floor {case['floor_ms']:.3f} ms by {case['bound']}" if "floor_ms" in case else ""
    yield f"\n{case['name']}: {verdict}{floor}"
    if not case["times"]:
        return
    rows = [_HEAD, *(_row(way, row, case["times"].get(OURS)) for way, row in case["times"].items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  " + "  ".join((row[0].ljust(widths[0]), *cells)).rstrip()


def _row(way: str, row: Row, ours: Row | None) -> Sequence[str]:
    if "ms" not in row:
        return (way, *[""] * 7, f"{row['state']}: {row['why']}")
    share = f"{row['of_floor']:.0%}" if "of_floor" in row else ""
    memory = f"{row['extra_mib']:.0f}" if "extra_mib" in row else ""
    error = "NaN" if row["error"] is None else f"{row['error']:.1e}"
    notes = [] if row["state"] == "ok" else ["WRONG"]
    if ours is not None and "ms" in ours and way != OURS:
        notes.append(f"ours {row['ms'] / ours['ms']:.2f}x")
    return (
        *(way, f"{row['ms']:.3f}", f"{row['p20']:.3f}-{row['p80']:.3f}"),
        *(f"{row['tflops']:.1f}", f"{row['gbps']:.0f}", share, memory, error, " ".join(notes)),
    )


def _summary(cases: Sequence[Row]) -> str:
    checks = [case["check"]["state"] for case in cases if case["check"]]
    times = [row["state"] for case in cases for row in case["times"].values()]
    return (
        f"\n{checks.count('ok')} of {len(checks)} checks right; "
        f"{times.count('ok')} of {len(times)} timings done, {times.count('not run')} for lack of time"
    )
