"""One piece of memory for all that a stage of the `triton` backend needs between its launches.

A stage is laid out once, launch after launch, so every buffer's life is known before anything runs:
it is placed where nothing else lives then. A rehearsal tells all lives; then the largest buffers are
placed first, and the smaller ones find gaps. Stages that take turns share the piece, which is as
large as the largest of them asks for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

_ENDLESS = 1 << 48  # bytes of no memory at all
_ALIGNMENT = 256  # bytes: more than the copy engine asks of a tile's source


@dataclass(frozen=True, slots=True)
class _Place:
    """Bytes `start` up to `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def meets(self, other: "_Place") -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(slots=True)
class _Life:
    """A tensor of `size` bytes, taken as the `first`-th and given back before the `last`-th."""

    size: int
    first: int
    last: int = _ENDLESS

    def meets(self, other: "_Life") -> bool:
        return self.first < other.last and other.first < self.last


class Arena:
    """Places tensors in `memory` [bytes] uint8; without memory they are shapes, on no device.

    `size` is what has been in use at the fullest moment, in bytes.
    """

    def __init__(self, memory: Tensor | None = None) -> None:
        self.memory = torch.empty(_ENDLESS, dtype=torch.uint8, device="meta")
        if memory is not None:
            self.memory = memory
        self._living: dict[int, tuple[Tensor, _Place]] = {}  # by the tensor's id
        self._clean: dict[tuple[object, ...], _Place] = {}  # pictures whose border is still zero
        self._lives: list[_Life] = []  # of all that was taken
        self._life_of: dict[int, _Life] = {}
        self._places: Sequence[_Place] | None = None  # where one has been told
        self.size = 0

    @property
    def device(self) -> torch.device:
        """Of what is taken."""
        return self.memory.device

    def packed(self) -> list[_Place]:
        """Where each tensor that was taken had better lie, now that every life is known."""
        placed: dict[int, tuple[_Place, _Life]] = {}
        for life in sorted(self._lives, key=lambda life: (-life.size, life.first)):
            taken = [place for place, other in placed.values() if other.meets(life)]
            placed[life.first] = _first_gap(taken, life.size), life
        return [placed[number][0] for number in range(len(placed))]

    def follow(self, places: Sequence[_Place]) -> None:
        """What is taken lies there, one after the other; nothing has been taken yet."""
        self._places = places

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of any content, where nothing lives.

        ValueError where the memory is too small, for it is sized by laying the stage out before; and
        where the places to follow are another stage's.
        """
        number, size = len(self._lives), prod(shape) * dtype.itemsize
        if self._places is None:
            place = _first_gap([place for _, place in self._living.values()], size)
        elif number < len(self._places) and self._places[number].size == size:
            place = self._places[number]
        else:
            raise ValueError(f"the arena was laid out without {shape} of {dtype} at {number}")
        tensor = self._tensor(place, shape, dtype)
        self._living[id(tensor)] = tensor, place
        self._life_of[id(tensor)] = _Life(size, number)
        self._lives.append(self._life_of[id(tensor)])
        self.size = max(self.size, place.end)
        self._clean = {key: at for key, at in self._clean.items() if not at.meets(place)}
        return tensor

    def take_bordered(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, bool]:
        """Pictures of [F, H + 2, W + 2, C], and whether their border is zero from an earlier use.

        Where it is not, the caller makes it so; nobody writes there afterwards.
        """
        clean = self._clean
        tensor = self.take(shape, dtype)
        _, place = self._living[id(tensor)]
        key = (place.start, shape, dtype)
        self._clean[key] = place
        return tensor, key in clean

    def give_back(self, tensor: Tensor) -> None:
        """What lives in `tensor` is not needed by any launch from here on."""
        del self._living[id(tensor)]
        self._life_of.pop(id(tensor)).last = len(self._lives)

    def _tensor(self, place: _Place, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if place.end > len(self.memory):
            raise ValueError(f"an arena of {len(self.memory)} bytes has no room up to {place.end}")
        return self.memory[place.start : place.end].view(dtype).view(shape)


def in_a_row(memory: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the sizes and types of `like`, one after the other from the start of `memory`.

    `memory`: [bytes] uint8, `row_bytes` of them or more. What lies there is of no meaning yet.
    """
    found, start = {}, 0
    for name, x in like.items():
        found[name] = memory[start : start + x.nbytes].view(x.dtype).view(x.shape)
        start += _aligned(x.nbytes)
    return found


def row_bytes(tensors: Iterable[Tensor]) -> int:
    """Of a row of such tensors."""
    return sum(_aligned(x.nbytes) for x in tensors)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _first_gap(taken: Sequence[_Place], size: int) -> _Place:
    """The first gap of `size` bytes between places that are taken."""
    start = 0
    for place in sorted(taken, key=lambda place: place.start):
        if place.start - start >= size:
            break
        start = max(start, _aligned(place.end))
    return _Place(start, start + size)
