"""The README's table of speed is what the results say, and is made, not typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from vr_trt.bench import readme_table
from vr_trt.bench.readme_table import BEGIN, END, documents, main, rewritten, table
from vr_trt.errors import UsageError


def result(**changes: Any) -> dict[str, Any]:
    about = {"profile": "360p", "clip": "demo", "processes": 5, "spread": 0.012}
    figures = {"cold_seconds": 9.87, "peak_host_mib": 1234.5, "peak_device_mib": None}
    ours = {**about, **figures, "way": "vr-trt", "fps": 2.5, "of_floor": 0.42}
    rival = {**about, **figures, "way": "torch", "fps": 1.0, "of_floor": None}
    machine = {"processor": "A Processor", "cores": 2, "gpu": None}
    return {
        "kind": "latency",
        "model": "nano",
        "machine": machine,
        "load_before": 0.1,
        "checks": {"360p": {"state": "ok"}},
        "rows": [ours, rival],
    } | changes


def write(folder: Path, **changes: Any) -> Path:
    (folder / "speed.json").write_text(json.dumps(result(**changes)))
    (folder / "another.json").write_text('{"rows": []}')  # of another kind
    return folder


def test_the_readme_is_what_the_results_say() -> None:
    assert main(["--check"]) == 0, "run `python -m vr_trt.bench.readme_table`"
    text = readme_table.README.read_text()
    assert all(f"bench/results/{name}" in text for name, _ in documents(readme_table.RESULTS))


def test_a_row_a_way(tmp_path: Path) -> None:
    lines = table(write(tmp_path)).splitlines()
    assert lines[0] == (
        "**nano** on A Processor, 2 cores ([speed.json](bench/results/speed.json)):"
    )
    assert lines[-2:] == [
        "| vr-trt | 360p, demo | 2.50 | 1%, 5 | 9.9 | 1234 |  | 42% |  |",
        "| torch | 360p, demo | 1.00 | 1%, 5 | 9.9 | 1234 |  |  | 2.5 times as fast |",
    ]
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_shared_machine_and_a_failed_rival_are_told(tmp_path: Path) -> None:
    failed = {"way": "torch", "profile": "360p", "clip": "demo", "failed": "out of memory"}
    lines = table(write(tmp_path, load_before=3.0, rows=[failed])).splitlines()
    assert "2 cores, shared (" in lines[0]
    assert "failed" in lines[-1] and lines[-1].count("|") == lines[-2].count("|")


def test_what_was_not_checked_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="360p was not checked"):
        table(write(tmp_path, checks={"360p": {"state": "not checked"}}))


def test_only_what_lies_between_the_markers_changes() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = rewritten(text, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert rewritten(once, "new") == once
    for missing in (BEGIN, END):
        with pytest.raises(UsageError, match="the README has no"):
            rewritten(text.replace(missing, ""), "new")


def test_a_typed_figure_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr(readme_table, "README", readme)
    monkeypatch.setattr(readme_table, "RESULTS", write(tmp_path))
    assert main(["--check"]) == 1
    assert main([]) == 0 and main(["--check"]) == 0
    readme.write_text(readme.read_text().replace("2.50", "9.50"))
    assert main(["--check"]) == 1
