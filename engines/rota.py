"""Which parts of a run take turns in one piece of the card's memory, and what that saves and moves.

A shot encodes a window's chunks, restores the window, decodes its chunks, and begins again. The
encoder's states, the generator's weights and the decoder's states are never needed at once: parts
that take turns lie at the start of one piece of memory, as large as the largest, and what another
part's turn covers is kept meanwhile in page-locked memory of the host. Weights never change, so they
only ever come in.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise

GENERATOR = "generator"
PARTS = ("encoder", GENERATOR, "decoder")  # in the order in which a window needs them
_PART_OF = {"encode": "encoder", "generator": GENERATOR, "decode": "decoder"}


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes `start` up to `stop` of the memory, and the parts, two or more, that lie there."""

    start: int
    stop: int
    parts: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Rota:
    """The parts that take turns, with what each brings, in bytes; none or two or more."""

    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Bytes of the card that they share."""
        return max(self.sizes.values(), default=0)

    @property
    def spared(self) -> int:
        """Bytes of the card that they would take beside each other, less what they share."""
        return sum(self.sizes.values()) - self.memory

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Where more than one part lies; what only the largest reaches is never moved."""
        edges = sorted({0, *self.sizes.values()})
        found = (
            Slice(start, stop, tuple(p for p, size in self.sizes.items() if size >= stop))
            for start, stop in pairwise(edges)
        )
        return tuple(slice for slice in found if len(slice.parts) > 1)

    @property
    def mirrors(self) -> int:
        """Page-locked bytes of the host."""
        return sum(slice.size * len(slice.parts) for slice in self.slices)

    @property
    def moved(self) -> int:
        """Bytes over the bus for every window within a shot: states out and in, weights in."""
        return sum(
            slice.size * (1 if part == GENERATOR else 2)
            for slice in self.slices
            for part in slice.parts
        )


NOBODY = Rota()


def part_of(stage: str) -> str:
    """The part that a network's stage belongs to."""
    return _PART_OF[stage.partition("_")[0]]


def rotas(sizes: Mapping[str, int]) -> Iterator[Rota]:
    """All that may take turns, of parts that would bring `sizes` bytes; first that none does."""
    yield NOBODY
    parts = [part for part in PARTS if sizes.get(part)]
    for count in range(2, len(parts) + 1):
        for some in combinations(parts, count):
            yield Rota({part: sizes[part] for part in some})


def best_rota(sizes: Mapping[str, int], needed: int, usable: int) -> Rota | None:
    """The one that moves the fewest bytes of those that fit; None where none does.

    `needed`: bytes of the whole run on the card where nothing takes turns; `usable`: that it has.
    """
    fitting = (rota for rota in rotas(sizes) if needed - rota.spared <= usable)
    return min(fitting, key=lambda rota: (rota.moved, rota.mirrors, -rota.spared), default=None)


def least_rota(sizes: Mapping[str, int]) -> Rota:
    """The one with which a run takes least of the card."""
    return max(rotas(sizes), key=lambda rota: (rota.spared, -rota.moved))


def in_words(parts: Iterable[str]) -> str:
    """`encoder, generator and decoder`."""
    *others, last = parts
    return f"{', '.join(others)} and {last}"
