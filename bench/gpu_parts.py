"""The last line of `bench/on_gpu.sh`: one JSON document, whatever became of the script's parts.

    python -m vr_trt.bench.gpu_parts FOLDER PART=CODE ...

CODE is a part's exit code, or `absent` for one that could not be begun. The benchmark's digest is
made from the file that it writes after every task, so a part that hung costs only itself. Needs
nothing but Python.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vr_trt.bench.kernel_report import line

TIMED_OUT = ("124", "137")  # of timeout, which asks and then insists
LOG_LINES = 3  # the last of a failed part's log


def parts_document(folder: Path, codes: Sequence[str]) -> dict[str, Any]:
    """What became of every part, and the benchmark's digest as far as it came."""
    parts = {}
    for entry in codes:
        name, _, code = entry.partition("=")
        parts[name] = _part(folder / f"{name}.log", code)
    done = [part["state"] == "ok" for part in parts.values() if part["state"] != "absent"]
    results = _results(folder / "kernels.json")
    right = bool(done) and all(done) and bool(results and results["right"])
    return {"right": right, "parts": parts, "kernels": results}


def _part(log: Path, code: str) -> dict[str, Any]:
    if code in ("0", "absent"):
        return {"state": "ok" if code == "0" else code}
    state = "time was up" if code in TIMED_OUT else "failed"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    kept = [text[:300] for text in lines if text.strip()][-LOG_LINES:]
    return {"state": state, "code": code, "log": kept}


def _results(path: Path) -> dict[str, Any] | None:
    """The digest of the results in `path`; None where there are none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    digest: dict[str, Any] = json.loads(line({"seconds": None, **document}))
    return digest


def main() -> None:
    """The command; fails unless all parts were right."""
    document = parts_document(Path(sys.argv[1]), sys.argv[2:])
    print(json.dumps(document, separators=(",", ":")))
    sys.exit(not document["right"])


if __name__ == "__main__":
    main()
