"""What a machine with a GPU left behind, put where it belongs: results, and block sizes.

    python -m vr_trt.bench.adopt FOLDER [--commit COMMIT]

FOLDER is what `bench/on_gpu.sh` and `vr_trt.bench.tune` wrote to. Its `kernels.json` becomes
`bench/results/GPU-kernels.json`; each row of its `tuned_rows.toml` goes into `kernels/tuned`, in
place of the row for the same chip and key or behind the others. COMMIT is what was measured, where
the machine had no history to ask. A table is written only if it can be read again.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vr_trt.errors import ModelError, VrTrtError
from vr_trt.kernels.tuning import read_table

ROOT = Path(__file__).resolve().parents[1]
_HEAD = re.compile(r"^# (\w+)\.toml, by .*$", re.MULTILINE)
_ROW = re.compile(r"(?:^# \w+\.toml, by .*\n)?^\[\[row\]\].*\n(?:(?!\[|#).+\n)*", re.MULTILINE)


def adopt(folder: Path, root: Path = ROOT, commit: str = "") -> list[Path]:
    """Write what `folder` has into the repository at `root`; the files that were written.

    ModelError for a folder without either, and for results that cannot be kept.
    """
    written = []
    results, rows = folder / "kernels.json", folder / "tuned_rows.toml"
    if results.is_file():
        document = _named(json.loads(results.read_text()), commit)
        name = document["gpu"]["name"].lower().removeprefix("nvidia ").replace(" ", "-")
        written.append(root / "bench/results" / f"{name}-kernels.json")
        written[-1].write_text(json.dumps(document, indent=1) + "\n")
    if rows.is_file():
        for kernel, row in _rows(rows.read_text()):
            table = root / "kernels/tuned" / f"{kernel}.toml"
            table.write_text(with_row(kernel, table.read_text(), row))
            written += [table] if table not in written else []
    if not written:
        raise ModelError(f"{folder} has neither kernels.json nor tuned_rows.toml: nothing to keep")
    return written


def with_row(kernel: str, table: str, row: str) -> str:
    """The text of a table with `row`, which begins with its comment; ModelError if it is no row."""
    wanted = _identity(kernel, table, row)
    kept = [
        found
        for found in _ROW.finditer(table)
        if _identity(kernel, table, found[0]) == wanted  # one at most: a table says nothing twice
    ]
    for found in kept:
        table = table.replace(found[0], row)
    text = table if kept else f"{table.rstrip()}\n\n{row}"
    read_table(kernel, text)
    return text


def _identity(kernel: str, table: str, row: str) -> tuple[object, ...]:
    """Chip and key of a row."""
    whole = tomllib.loads(table)
    head = f"key = {json.dumps(whole['key'])}\nsizes = {json.dumps(whole['sizes'])}\n"
    (read,) = read_table(kernel, head + row).rows
    return (read.chip, *sorted(read.key.items()))


def _rows(text: str) -> Iterator[tuple[str, str]]:
    """Kernels and their rows, as `vr_trt.bench.tune` writes them."""
    heads = [*_HEAD.finditer(text)]
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        yield head[1], text[head.start() : end].rstrip() + "\n"


def _named(document: dict[str, Any], commit: str) -> dict[str, Any]:
    """The results with the commit; ModelError where they are of no GPU or nobody knows of what."""
    if document["small"]:
        raise ModelError("these results were made without a GPU: their times mean nothing")
    machine = document["machine"]
    machine["commit"] = commit or machine["commit"]
    if not machine["commit"]:
        raise ModelError("the results do not say of which commit: name it with --commit")
    return document


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", default="", help="what was measured")
    given = parser.parse_args()
    try:
        for path in adopt(given.folder, commit=given.commit):
            print(path.relative_to(ROOT))
    except VrTrtError as error:
        print(f"vr-trt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
