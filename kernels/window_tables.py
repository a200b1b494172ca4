"""What the attention kernel is told of the windows, as flat tables without padding.

Dimension key: N video tokens, L text tokens, nW windows, D head width. A row number below N is a
video token, N + n is text token n. Everything is a pure function of sizes; source: spec §4.1–4.4.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from vr_trt.kernels.rope import Rope, text_tables
from vr_trt.kernels.windows import Grid, any_size_tables, partition, window_tokens

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSpec:
    """One partition of a grid of tokens, and what attends in it."""

    grid: Grid
    shifted: bool
    text_tokens: int
    head_width: int
    rope: Rope
    text_queries: bool = True  # False in the last block: the text is only attended to

    @property
    def video_tokens(self) -> int:
        return prod(self.grid)


@dataclass(frozen=True, slots=True, eq=False)
class PackedWindows:
    """The sequences of all windows, one after the other; each ends with all of the text."""

    index: Ints  # [N + nW * L] row numbers
    starts: Ints  # [nW + 1] where each sequence begins in `index`, and the end

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.starts) - 1

    def tiles(self, block: int, keys_only: int = 0) -> Ints:
        """[tiles, 5]: the work, cut into blocks of at most `block` queries of one window.

        A row is the window's start in `index`, the first query, the number of queries and of keys,
        the window. The last `keys_only` rows of a window have no queries. Long windows come first,
        so that the chip's last round of programs is short; blocks of a window stay together, for
        they read the same keys.
        """
        lengths = np.diff(self.starts)
        rows = [
            (self.starts[window], first, lengths[window] - keys_only, lengths[window], window)
            for window in np.argsort(-lengths, kind="stable")
            for first in range(0, lengths[window] - keys_only, block)
        ]
        return np.array(rows, np.int32)


@lru_cache(maxsize=64)
def packed_windows(grid: Grid, shifted: bool, text_tokens: int) -> PackedWindows:
    """The windows of `grid`, in the reference's order."""
    count = prod(grid)
    text = np.arange(count, count + text_tokens)
    sequences = [
        np.concatenate([window_tokens(grid, window), text]) for window in partition(grid, shifted)
    ]
    starts = np.cumsum([0, *(len(sequence) for sequence in sequences)])
    return PackedWindows(np.concatenate(sequences).astype(np.int32), starts.astype(np.int32))


def rotary_rows(spec: WindowSpec) -> tuple[Floats, Floats]:
    """cos and sin [N + L, D / 2] by row number: a token is in one window only."""
    tables = any_size_tables(spec.grid, spec.text_tokens, spec.head_width, spec.rope)
    name = "shifted" if spec.shifted else "plain"
    text = text_tables(spec.rope, spec.text_tokens, spec.head_width)
    cos, sin = (
        np.concatenate([tables[f"{name}.{part}"][:, 0], rows]).astype(np.float32)
        for part, rows in zip(("cos", "sin"), text, strict=True)
    )
    return cos, sin
