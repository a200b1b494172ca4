"""Block sizes, warps and stages of every kernel, per chip: the committed tables `tuned/*.toml`.

Nothing is tuned on a user's machine. A table of kernel `k` reads

    key = ["head_width", "dtype"]     # what a row may depend on
    sizes = ["BLOCK_Q", "BLOCK_K"]    # the compile-time sizes that every row gives

    [[row]]
    chip = 80                         # serves this chip, and later ones that have no row
    head_width = 128                  # a row without a key's field serves all its values
    BLOCK_Q = 128
    BLOCK_K = 64
    num_warps = 8
    num_stages = 2

Of the rows whose fields agree with what is asked, the newest chip not newer than ours wins, and of
its rows the one that states most. A later chip may have less shared memory (86 than 80, 120 than
100): it wants rows of its own, and the tests of a kernel compile its table for every chip.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.errors import ModelError

if TYPE_CHECKING:
    import torch

CHIPS = (80, 86, 89, 90, 100, 120)  # the kernels are compiled and tested for these
COPY_ENGINE = 90  # the first chip that fetches tiles by descriptor
_FOLDER = Path(__file__).with_name("tuned")
_LAUNCH = ("num_warps", "num_stages")
_MOST_STAGES = 8

Field = int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """One row: what it is for, and how the kernel is compiled there."""

    chip: int
    key: Mapping[str, Field]
    options: Mapping[str, int]  # sizes, num_warps, num_stages: arguments of the launch

    def serves(self, chip: int, key: Mapping[str, Field]) -> bool:
        """Whether the row is for `key`, on `chip` or an older one."""
        return self.chip <= chip and all(key[name] == value for name, value in self.key.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedTable:
    """All rows of one kernel."""

    kernel: str
    key: tuple[str, ...]
    rows: tuple[Tuned, ...]

    def pick(self, chip: int, key: Mapping[str, Field]) -> Tuned:
        """The row for `key` on `chip`; ModelError where there is none."""
        if set(key) != set(self.key):
            raise ModelError(
                f"{self.kernel} is tuned by {', '.join(self.key) or 'the chip alone'}, "
                f"not by {', '.join(key) or 'nothing'}: ask with these"
            )
        able = [row for row in self.rows if row.serves(chip, key)]
        if not able:
            asked = ", ".join(f"{name} {value}" for name, value in key.items())
            raise ModelError(
                f"no tuned configuration of {self.kernel} for sm_{chip}, {asked}: "
                f"add a row to kernels/tuned/{self.kernel}.toml"
            )
        return max(able, key=lambda row: (row.chip, len(row.key)))


def tuned(kernel: str, capability: int, **key: Field) -> dict[str, int]:
    """The arguments of `kernel`'s launch on compute capability `capability`, as 89.

    Its sizes by name, `num_warps` and `num_stages`. ModelError where the table has no row for it.
    """
    return dict(tuned_table(kernel).pick(capability, key).options)


def capability_of(device: "torch.device") -> int:
    """The compute capability that a launch on `device` is tuned for, as 89.

    The CPU, where Triton interprets, takes the oldest chip's sizes.
    """
    if device.type != "cuda":
        return CHIPS[0]
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def tuned_table(kernel: str) -> TunedTable:
    """The committed table of `kernel`; ModelError where it is missing or wrong."""
    try:
        text = (_FOLDER / f"{kernel}.toml").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"there is no kernels/tuned/{kernel}.toml: write one") from None
    return read_table(kernel, text)


def read_table(kernel: str, text: str) -> TunedTable:
    """The table of `kernel` in the TOML `text`; ModelError names the row that is wrong."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"kernels/tuned/{kernel}.toml is no TOML: {error}") from None
    if set(raw) != {"key", "sizes", "row"}:
        raise ModelError(f"kernels/tuned/{kernel}.toml wants key, sizes and [[row]]")
    key, sizes = tuple(raw["key"]), tuple(raw["sizes"])
    rows = tuple(_row(kernel, entry, key, sizes) for entry in raw["row"])
    seen = [(row.chip, tuple(row.key.items())) for row in rows]
    for entry in seen:
        if seen.count(entry) > 1:
            raise ModelError(f"kernels/tuned/{kernel}.toml says twice: {entry}")
    return TunedTable(kernel=kernel, key=key, rows=rows)


def _row(
    kernel: str, entry: Mapping[str, Field], key: tuple[str, ...], sizes: tuple[str, ...]
) -> Tuned:
    needed, allowed = {"chip", *sizes, *_LAUNCH}, {"chip", *key, *sizes, *_LAUNCH}
    if missing := needed - set(entry):
        raise ModelError(f"a row of {kernel} lacks {', '.join(sorted(missing))}: {entry}")
    if unknown := set(entry) - allowed:
        raise ModelError(f"a row of {kernel} has unknown {', '.join(sorted(unknown))}: {entry}")
    options = {name: entry[name] for name in (*sizes, *_LAUNCH)}
    whole = {name: value for name, value in options.items() if type(value) is int}
    if set(whole) != set(options) or min(whole.values()) < 1:
        raise ModelError(f"a row of {kernel} has sizes that are no positive integers: {entry}")
    if whole["num_warps"] not in (1, 2, 4, 8, 16) or whole["num_stages"] > _MOST_STAGES:
        raise ModelError(f"a row of {kernel} has impossible warps or stages: {entry}")
    chip = entry["chip"]
    if type(chip) is not int or chip not in CHIPS:
        raise ModelError(f"a row of {kernel} is for chip {chip!r}, not one of {CHIPS}")
    stated = {name: entry[name] for name in key if name in entry}
    return Tuned(chip=chip, key=stated, options=whole)
