"""The generator's schedule over a shot: overlapping windows, blended in latent space.

With windows of T latents and an overlap of o, windows start every T - o latents; the last one slides
back so that it ends with the shot. Of each window the last o latents are held back until the next
window blends into them; everything before them is final when its window is done. A latent that was
released never changes, so a film of any length needs the memory of one window.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# [1, C, n, h, w], C = 16 in SeedVR2: float32 arrays, or what a device has instead; both have a
# shape and are sliced along n.
Latents = Any
Generate = Callable[[int, Latents], Latents]  # (index of the first latent, window) -> restored


def blend_weights(overlap: int) -> NDArray[np.float32]:
    """The newer window's share at each overlapping latent; the older one has the rest."""
    return np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)


class LatentMath(Protocol):
    """What is done with latents between the stages."""

    def join(self, parts: Sequence[Any]) -> Latents:
        """One after the other."""

    def blend(self, older: Any, newer: Any) -> Latents:
        """`newer`, its first latents blended with all of `older`, if there is one; neither changes."""


class HostLatents:
    """Latents in numpy's arrays."""

    def join(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(parts, axis=2)

    def blend(
        self, older: NDArray[np.float32] | None, newer: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        final = newer.copy()
        if older is not None:
            count = older.shape[2]
            share = blend_weights(count).reshape(1, 1, -1, 1, 1)
            final[:, :, :count] = (1 - share) * older + share * final[:, :, :count]
        return final


class LatentWindows:
    """Latents of one shot in, in order; restored latents out, in order, each once."""

    def __init__(
        self,
        window: int,
        overlap: int,
        generate: Generate,
        start: int = 0,
        math: LatentMath | None = None,
    ) -> None:
        """`window` and `overlap` in latents, 0 <= overlap < window.

        With a `start` beyond 0, where one of the shot's windows begins, latents come from there on,
        and the first `overlap` that are released lack their blend with the window before.
        """
        if not 0 <= overlap < window:
            raise ValueError(f"an overlap of {overlap} does not fit a window of {window} latents")
        self._window = window
        self._overlap = overlap
        self._generate = generate
        self._math = math or HostLatents()
        self._recent: deque[Latents] = deque(maxlen=window)  # the newest latents
        self._start = start
        self._pushed = start
        self._done_to = 0  # end of the last window that was generated
        self._released = start
        self._tail: Latents | None = None  # restored latents held back: _released … _done_to

    def push(self, latents: Latents) -> Iterator[Latents]:
        """Take [1, C, n, h, w]; yield what became final, some latents at a time."""
        for i in range(latents.shape[2]):
            self._recent.append(latents[:, :, i : i + 1])
            self._pushed += 1
            if self._pushed == self._next_start() + self._window:
                yield from self._run_window(held=self._overlap)

    def finish(self) -> Iterator[Latents]:
        """End the shot: yield what is left. ValueError if it was shorter than one window."""
        if self._pushed - self._start < self._window:
            raise ValueError(
                f"a shot of {self._pushed - self._start} latents is shorter than the window of "
                f"{self._window}: repeat its last frame before encoding"
            )
        if self._done_to < self._pushed:
            yield from self._run_window(held=0)
        elif self._tail is not None:
            yield from self._release(self._tail, held=0)

    def _next_start(self) -> int:
        return self._done_to - self._overlap if self._done_to else self._start

    def _run_window(self, held: int) -> Iterator[Latents]:
        """Generate the window that ends at the newest latent."""
        start = self._pushed - self._window
        restored = self._generate(start, self._math.join(list(self._recent)))
        final = self._math.blend(self._tail, restored[:, :, self._released - start :])
        self._done_to = self._pushed
        yield from self._release(final, held)

    def _release(self, restored: Latents, held: int) -> Iterator[Latents]:
        cut = restored.shape[2] - held
        self._tail = restored[:, :, cut:] if held else None
        self._released += cut
        yield restored[:, :, :cut]
