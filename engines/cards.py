"""GPUs by their memory, the canvas of a profile there, and what a run takes of the one that is here."""

from dataclasses import dataclass, replace

from vr_trt.engines.cache import Canvas
from vr_trt.engines.memory_law import TOKEN
from vr_trt.engines.profiles import Profile

GIB = 1 << 30
CARDS = (8, 12, 16, 24, 32, 48, 80, 141)  # GB, as they are sold, which are GiB
USABLE = 0.95  # not measured: a desktop and fragments take the rest


def usable_bytes(memory: int) -> int:
    """Of a card with `memory` bytes."""
    return int(memory * USABLE)


def wide_canvas(profile: Profile) -> Canvas:
    """A profile's canvas for a 16:9 picture."""
    return Canvas(
        width=_padded(profile.short_side * 16 // 9),
        height=_padded(profile.short_side),
        latents=profile.window_latents,
        step=profile.latents_per_step,
    )


def _padded(side: int) -> int:
    return -(-side // TOKEN) * TOKEN


@dataclass(frozen=True, kw_only=True, slots=True)
class CardUse:
    """What a run takes of the card that is here, and what the card has for it, in bytes."""

    needed: int
    usable: int
    advice: str  # where it does not fit

    @property
    def fits(self) -> bool:
        return self.needed <= self.usable

    def with_more(self, size: int) -> "CardUse":
        """The same for a run that takes `size` bytes more."""
        return replace(self, needed=self.needed + size)
