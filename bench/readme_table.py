"""The README's table of speed, made of the files in bench/results: `python -m vr_trt.bench.readme_table`.

It stands between two markers and is never typed. `--check` changes nothing and fails where the
README differs from the results.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vr_trt.bench.latency_report import SHARED_LOAD, number, ratio
from vr_trt.errors import UsageError, VrTrtError

BEGIN = "<!-- speed: made by `python -m vr_trt.bench.readme_table`; do not edit -->"
END = "<!-- end of speed -->"
ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"
Document = Mapping[str, Any]

HEAD = (
    "| way | profile, clip | frames/s | spread, processes | first frame, s | host, MiB | GPU, MiB "
    "| of the roofline | vr-trt is |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
)


def documents(folder: Path) -> Iterator[tuple[str, Document]]:
    """Name and contents of every result of `vr-trt bench latency` in a folder, by name."""
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        if document.get("kind") == "latency":
            yield path.name, document


def table(folder: Path) -> str:
    """Everything between the markers: a table for each file. UsageError for one not checked."""
    return "\n\n".join(_one(name, document) for name, document in documents(folder))


def _one(name: str, document: Document) -> str:
    for profile, check in document["checks"].items():
        if check["state"] != "ok":
            raise UsageError(f"{name}: {profile} was {check['state']}: such figures are not shown")
    machine = document["machine"]
    where = machine["gpu"]["name"] if machine["gpu"] else machine["processor"]
    shared = ", shared" if (document["load_before"] or 0) > SHARED_LOAD else ""
    file = f"[{name}](bench/results/{name})"
    lines = [
        f"**{document['model']}** on {where}, {machine['cores']} cores{shared} ({file}):",
        "",
        HEAD,
        *(_row(document, row) for row in document["rows"]),
    ]
    return "\n".join(lines)


def _row(document: Document, row: Document) -> str:
    about = f"| {row['way']} | {row['profile']}, {row['clip']} |"
    if "failed" in row:
        return f"{about} failed | | | | | | |"
    times = ratio(document, row)
    return (
        f"{about} {row['fps']:.2f} | {row['spread']:.0%}, {row['processes']} | "
        f"{row['cold_seconds']:.1f} | {row['peak_host_mib']:.0f} | "
        f"{number(row['peak_device_mib'], '{:.0f}')} | {number(row['of_floor'], '{:.0%}')} | "
        f"{number(times, '{:.1f} times as fast')} |"
    )


def rewritten(text: str, made: str) -> str:
    """The README's text with `made` between the markers; UsageError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the README has no {BEGIN if not begin else END}: put it back")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    try:
        text = README.read_text(encoding="utf-8")
        wanted = rewritten(text, table(RESULTS))
    except VrTrtError as error:
        print(f"vr-trt: {error}", file=sys.stderr)
        return error.exit_code
    if given.check:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
