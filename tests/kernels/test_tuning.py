"""Tables of tuned configurations: which row serves, and what is refused."""

import re
from itertools import product
from pathlib import Path

import pytest

from vr_trt.errors import ModelError
from vr_trt.kernels import tuning
from vr_trt.kernels.tuning import CHIPS, capability_of, read_table, tuned, tuned_table

TABLE = """
key = ["width", "dtype"]
sizes = ["BLOCK"]
[[row]]
chip = 80
BLOCK = 16
num_warps = 4
num_stages = 2
[[row]]
chip = 80
width = 64
dtype = "fp16"
BLOCK = 32
num_warps = 4
num_stages = 3
[[row]]
chip = 90
width = 64
BLOCK = 64
num_warps = 8
num_stages = 4
"""


@pytest.mark.parametrize(
    ("chip", "width", "dtype", "block"),
    [
        (80, 7, "bf16", 16),  # what states nothing serves all
        (80, 64, "fp16", 32),  # what states more goes first
        (80, 64, "bf16", 16),
        (89, 64, "fp16", 32),  # an older chip's row where there is no newer
        (90, 64, "fp16", 64),  # the newer chip's row before the one that states more
        (90, 65, "fp16", 16),
        (121, 64, "bf16", 64),
    ],
)
def test_the_row_that_serves(chip: int, width: int, dtype: str, block: int) -> None:
    row = read_table("k", TABLE).pick(chip, {"width": width, "dtype": dtype})
    assert row.options["BLOCK"] == block
    assert set(row.options) == {"BLOCK", "num_warps", "num_stages"}


def test_a_chip_older_than_every_row_is_refused() -> None:
    with pytest.raises(ModelError, match="no tuned configuration of k for sm_75, width 64"):
        read_table("k", TABLE).pick(75, {"width": 64, "dtype": "fp16"})


@pytest.mark.parametrize("key", [{}, {"width": 64}, {"width": 1, "dtype": "a", "more": 2}])
def test_a_question_by_other_keys_is_refused(key: dict[str, int | str]) -> None:
    with pytest.raises(ModelError, match="is tuned by width, dtype, not by"):
        read_table("k", TABLE).pick(90, key)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("chip = 90\n", "", "lacks chip"),
        ("num_stages = 4\n", "", "lacks num_stages"),
        ("BLOCK = 64\n", "BLOCK = 64\nBLOK = 3\n", "unknown BLOK"),
        ("BLOCK = 64", "BLOCK = 0", "no positive integers"),
        ("BLOCK = 64", "BLOCK = true", "no positive integers"),
        ("BLOCK = 64", 'BLOCK = "64"', "no positive integers"),
        ("num_warps = 8", "num_warps = 6", "impossible warps"),
        ("num_stages = 4", "num_stages = 9", "impossible warps or stages"),
        ("chip = 90", "chip = 91", "is for chip 91"),
        ("chip = 90\nwidth = 64\n", "chip = 80\n", "says twice"),
        ("sizes =", "size =", "wants key, sizes"),
        ("[[row]]", "[[row", "is no TOML"),
    ],
)
def test_a_wrong_table_is_refused(old: str, new: str, error: str) -> None:
    assert old in TABLE
    with pytest.raises(ModelError, match=re.escape(error)):
        read_table("k", TABLE.replace(old, new))


def test_a_kernel_without_a_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text(TABLE)
    monkeypatch.setattr(tuning, "_FOLDER", tmp_path)
    with pytest.raises(ModelError, match="kernels/tuned/yours.toml"):
        tuned("yours", 90)
    assert tuned("mine", 90, width=64, dtype="fp16")["num_warps"] == 8
    tuned_table.cache_clear()


def test_the_interpreter_takes_the_oldest_chip_s_sizes() -> None:
    torch = pytest.importorskip("torch")
    assert capability_of(torch.device("cpu")) == min(CHIPS)


def test_the_committed_tables_are_whole() -> None:
    tables = sorted((Path(tuning.__file__).parent / "tuned").glob("*.toml"))
    for path in tables:
        table = tuned_table(path.stem)
        assert {row.chip for row in table.rows} >= {min(CHIPS)}, path.stem


def test_every_committed_row_serves_something() -> None:
    """Of rows that state as much, the first goes first: one behind it might never be used."""
    for path in sorted((Path(tuning.__file__).parent / "tuned").glob("*.toml")):
        table = tuned_table(path.stem)
        stated = {
            name: {row.key[name] for row in table.rows if name in row.key} or {0}
            for name in table.key
        }
        keys = [
            dict(zip(table.key, values, strict=True))
            for values in product(*(stated[name] for name in table.key))
        ]
        for row in table.rows:
            assert any(table.pick(row.chip, key) is row for key in keys), (path.stem, row)
