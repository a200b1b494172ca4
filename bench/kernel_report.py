"""What the kernels' benchmark found, for people to read and, in a line, for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vr_trt.bench.case import OURS

Row = Mapping[str, Any]
DIGEST = ("right", "ms", "tflops", "of_floor", "rival", "rival_ms")
_HEAD = ("way", "ms", "p20-p80", "TFLOP/s", "GB/s", "of floor", "MiB", "error", "")


def report(document: Row) -> str:
    """Checks that failed, ceilings, and a table per case."""
    return "\n".join(_lines(document))


def line(document: Row) -> str:
    """The whole in one line of JSON: a few kilobytes, while the document has a hundred."""
    digests = {case["name"]: (case, _digest(case)) for case in document["cases"]}
    cases = {
        name: [*found.values()]
        for name, (case, found) in digests.items()
        if case["timed"] or found["right"] != "ok"  # of awkward sizes only what is not right
    }
    kept = {name: document[name] for name in ("schema", "right", "small", "seconds", "problems")}
    ceilings = {name: round(value, 1) for name, value in document["ceilings"].items()}
    gpu, commit = document["gpu"]["name"], document["machine"]["commit"]
    about = {**kept, "gpu": gpu, "commit": commit, "ceilings": ceilings}
    return json.dumps({**about, "columns": DIGEST, "cases": cases}, separators=(",", ":"))


def _digest(case: Row) -> Row:
    """Whether it is right; our milliseconds, TFLOP/s and share of the floor; the best rival's."""
    ours = case["times"].get(OURS, {})
    found: dict[str, Any] = dict.fromkeys(DIGEST)
    if case["check"] or ours:
        found["right"] = (case["check"] or ours)["state"]
    for name, digits in (("ms", 4), ("tflops", 1), ("of_floor", 3)):
        if name in ours:
            found[name] = round(ours[name], digits)
    rivals = {way: row["ms"] for way, row in _right_rivals(case)}
    if rivals:
        found["rival"] = min(rivals, key=lambda way: rivals[way])
        found["rival_ms"] = round(rivals[found["rival"]], 4)
    return found


def _right_rivals(case: Row) -> Iterator[tuple[str, Row]]:
    for way, row in case["times"].items():
        if not way.startswith(OURS) and row["state"] == "ok":
            yield way, row


def overview(document: Row) -> str:
    """One line a timed or wrong case: ours beside the floor and beside the best rival."""
    rows = [("", "right", "floor ms", "ours ms", "of floor", "TFLOP/s", "best rival", "ms", "ours")]
    for case in document["cases"]:
        found = _digest(case)
        if not case["timed"] and found["right"] == "ok":
            continue
        ours, rival = found["ms"], found["rival_ms"]
        floor = f"{case['floor_ms']:.3f}" if "floor_ms" in case else ""
        share = "" if found["of_floor"] is None else f"{found['of_floor']:.0%}"
        tflops = "" if found["tflops"] is None else f"{found['tflops']:.0f}"
        rows.append(
            (
                *(case["name"], found["right"] or "-", floor, _ms(ours), share, tflops),
                *(
                    found["rival"] or "",
                    _ms(rival),
                    f"{rival / ours:.2f}x" if ours and rival else "",
                ),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, _summary(document["cases"]).strip()])


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


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
