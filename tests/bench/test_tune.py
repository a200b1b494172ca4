"""The search for block sizes, and the rows that it writes."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.bench import tune
from vr_trt.bench.case import MODULES, cases_of
from vr_trt.bench.tune import Found, Options, Tuning, best_of, chosen, descend, row_text, run
from vr_trt.kernels.tuning import read_table, tuned_table

SPACE = {"A": (1, 2, 4), "B": (1, 2, 4)}


def test_the_search_keeps_what_is_faster() -> None:
    tried: list[Options] = []

    def ms(options: Options) -> float:
        tried.append(options)
        return 10 - options["A"] - (options["B"] if options["A"] == 4 else -options["B"])

    found = descend({"A": 1, "B": 2, "C": 7}, SPACE, ms)
    assert found == Found(options={"A": 4, "B": 4, "C": 7}, ms=2.0, before=11.0, tried=len(tried))
    assert len(tried) == len({tuple(sorted(options.items())) for options in tried})


def test_what_a_round_may_try_is_prepared_together() -> None:
    rounds: list[Sequence[Options]] = []
    descend({"A": 2, "B": 1}, SPACE, lambda o: 9.0 - o["A"], rounds.append)
    of_a = [{"A": value, "B": 1} for value in SPACE["A"]]
    assert rounds[0] == [*of_a, *({"A": 2, "B": value} for value in SPACE["B"])]
    assert len(rounds) == 2 and {"A": 4, "B": 4} in rounds[1]


def test_what_is_unusable_is_passed_over_even_at_the_start() -> None:
    found = descend({"A": 1, "B": 1}, SPACE, lambda o: None if o["B"] == 1 else 8.0 / o["B"])
    assert found is not None and found.options == {"A": 1, "B": 4} and found.before is None
    assert descend({"A": 1, "B": 1}, SPACE, lambda o: None) is None


def test_what_no_single_change_leads_to_is_a_beginning_of_its_own() -> None:
    def ms(options: Options) -> float | None:
        together = options["A"] == options["B"] == 4
        return 1.0 if together else None if 4 in options.values() else 5.0 - options["A"]

    alone = descend({"A": 1, "B": 1}, SPACE, ms)
    found = best_of([{"A": 1, "B": 1}, {"A": 4, "B": 4}], SPACE, ms)
    assert alone is not None and found is not None
    assert (alone.options, alone.before) == ({"A": 2, "B": 1}, 4.0)
    assert (found.options, found.ms, found.before) == ({"A": 4, "B": 4}, 1.0, 4.0)
    assert found.tried > alone.tried
    assert best_of([{"A": 4, "B": 1}], {}, ms) is None


def test_a_difference_within_the_noise_changes_nothing() -> None:
    found = descend({"A": 1, "B": 1}, SPACE, lambda o: 1 - 0.001 * o["A"])
    assert found is not None and found.options == {"A": 1, "B": 1}


def test_a_row_is_one_of_its_table() -> None:
    key = {
        "outputs": 128, "bits": 16, "prologue": 0, "frames": 2, "inputs": 32, "layer": "3x3x3"
    }  # fmt: skip
    card = {"name": "conv3d 128-128 720p", "tunable": {"table": "conv3d", "key": key}}
    sizes = {"BLOCK_M": 256, "BLOCK_N": 128, "BLOCK_K": 64, "PARTS": 2, "FRAMES": 1}
    found = Found(options={**sizes, "num_warps": 8, "num_stages": 3}, ms=1.5, before=2.0, tried=9)
    text = row_text(card, 90, found, "a chip")
    assert text.startswith("# conv3d.toml, by conv3d 128-128 720p: 1.5000 ms, was 2.0000; a chip\n")
    head = f"key = {[*key]}\nsizes = {[*sizes]}\n"
    (row,) = read_table("conv3d", head + text).rows
    assert row.chip == 90 and row.options == found.options and row.key["outputs"] == 128


def test_every_tunable_case_finds_its_row_and_its_space() -> None:
    tables = set()
    for module in MODULES:
        for case in cases_of(module, small=False):
            if case.tunable is not None:
                options = case.tunable.options(90)
                space = tune.SPACES[case.tunable.table]
                assert set(space) <= set(options) | {"num_warps", "num_stages"}
                assert all(set(start) <= set(options) for start in case.tunable.starts)
                assert set(case.tunable.key) == set(tuned_table(case.tunable.table).key)
                tables.add(case.tunable.table)
    assert tables == set(tune.SPACES)


def test_the_first_of_every_table_or_those_named() -> None:
    def card(name: str, importance: int, table: str | None) -> dict[str, Any]:
        tunable = table and {"table": table}
        return {"name": name, "importance": importance, "tunable": tunable, "timed": True}

    cards = [card("a 1", 1, "a"), card("a 0", 0, "a"), card("b", 2, "b"), card("c", 0, None)]
    assert [c["name"] for c in chosen(cards, ())] == ["a 0", "b"]
    assert [c["name"] for c in chosen(cards, ("a",))] == ["a 0", "a 1"]


def test_small_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "SPACES", {"wavelet": {"ROWS": (4, 3, 8)}})
    document = run(Tuning(out=tmp_path, seconds=100, small=True))
    (row,) = document["rows"]
    assert row["table"] == "wavelet" and row["tried"] == 3 and row["ms"] <= row["before_ms"]
    assert "Error" not in (tmp_path / "tune.log").read_text()  # three rows end no worker
    text = (tmp_path / "tuned_rows.toml").read_text()
    assert tomllib.loads(text)["row"][0]["ROWS"] == row["options"]["ROWS"]
