"""Results and block sizes from a GPU's machine find their places in the repository."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from vr_trt.bench import machine
from vr_trt.bench.adopt import ROOT, adopt, with_row
from vr_trt.bench.tune import Found, row_text
from vr_trt.errors import ModelError
from vr_trt.kernels.tuning import CHIPS, read_table, tuned_table

ALL = sorted(path.stem for path in (ROOT / "kernels/tuned").glob("*.toml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    shutil.copytree(ROOT / "kernels/tuned", made / "kernels/tuned")
    (made / "bench/results").mkdir(parents=True)
    return made


def row_of(kernel: str, key: dict[str, int | str], stages: int, chip: int = 90) -> str:
    """As tuning writes it, with the sizes that the table has for the key."""
    options = {**tuned_table(kernel).pick(chip, key).options, "num_stages": stages}
    card = {"name": f"{kernel} at some size", "tunable": {"table": kernel, "key": key}}
    found = Found(options=options, ms=1.5, before=2.0, tried=9)
    return row_text(card, chip, found, "H200, commit abc")


def test_rows_go_into_their_tables(tmp_path: Path, root: Path) -> None:
    key: dict[str, int | str] = {
        "outputs": 128, "bits": 16, "prologue": 0, "frames": 2, "inputs": 32, "layer": "3x3x3"
    }  # fmt: skip
    rows = [row_of("conv3d", key, 2), row_of("fp8_linear", {}, 5), row_of("conv3d", key, 3)]
    (tmp_path / "tuned_rows.toml").write_text("\n".join(rows))
    tables = [root / "kernels/tuned" / f"{name}.toml" for name in ("conv3d", "fp8_linear")]
    before = [len(tomllib.loads(path.read_text())["row"]) for path in tables]
    assert adopt(tmp_path, root) == tables
    conv, linear = (read_table(path.stem, path.read_text()) for path in tables)
    assert conv.pick(90, key).options["num_stages"] == 3  # the later of the two
    assert linear.pick(90, {}).options["num_stages"] == 5
    assert [len(conv.rows), len(linear.rows)] == [
        before[0] + 1,
        before[1],
    ]  # one in another's place
    other = {**key, "outputs": 256}
    assert conv.pick(90, other) == tuned_table("conv3d").pick(90, other)
    adopt(tmp_path, root)  # again: nothing is said twice
    assert read_table("conv3d", tables[0].read_text()) == conv


@pytest.mark.parametrize("kernel", ALL)
def test_every_row_of_every_table_can_be_replaced(kernel: str) -> None:
    """And nothing else changes, comments included."""
    text = (ROOT / "kernels/tuned" / f"{kernel}.toml").read_text()
    for row in tuned_table(kernel).rows:
        fields = {"chip": row.chip, **row.key, **row.options, "num_stages": 7}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in fields.items()]
        changed = with_row(kernel, text, f"# {kernel}.toml, by a test\n[[row]]\n{''.join(lines)}")
        found = read_table(kernel, changed).rows
        same = [a == b for a, b in zip(found, tuned_table(kernel).rows, strict=True)]
        assert row.options["num_stages"] == 7 or same.count(False) == 1
        assert changed.splitlines()[0] == text.splitlines()[0]


def test_what_is_no_row_is_refused_and_nothing_is_written(tmp_path: Path, root: Path) -> None:
    table = root / "kernels/tuned/fp8_linear.toml"
    before = table.read_text()
    row = row_of("fp8_linear", {}, 3).replace("num_warps = 8", "num_warps = 3")
    (tmp_path / "tuned_rows.toml").write_text(row)
    with pytest.raises(ModelError, match="impossible warps"):
        adopt(tmp_path, root)
    assert table.read_text() == before and max(CHIPS) == 120


def test_results_are_named_after_the_gpu_and_say_of_which_commit(
    tmp_path: Path, root: Path
) -> None:
    document = {"small": False, "gpu": {"name": "NVIDIA H200"}, "machine": {"commit": ""}}
    path = tmp_path / "kernels.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match="--commit"):
        adopt(tmp_path, root)
    (kept,) = adopt(tmp_path, root, "abc1234")
    assert kept == root / "bench/results/h200-kernels.json"
    assert json.loads(kept.read_text())["machine"] == {"commit": "abc1234"}
    path.write_text(json.dumps(document | {"small": True}))
    with pytest.raises(ModelError, match="without a GPU"):
        adopt(tmp_path, root, "abc1234")
    path.unlink()
    with pytest.raises(ModelError, match="neither"):
        adopt(tmp_path, root)


def test_a_copy_without_its_history_is_told_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    monkeypatch.delenv("VR_TRT_COMMIT", raising=False)
    assert machine.describe()["commit"] == ""
    monkeypatch.setenv("VR_TRT_COMMIT", "abc1234")
    assert machine.describe()["commit"] == "abc1234"
