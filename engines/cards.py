"""Which profile fits a card, and with which settings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from vr_trt.engines.cache import Canvas
from vr_trt.engines.card_budget import Budget, Settings, budget, largest_tensor
from vr_trt.engines.memory_law import NETWORKS, TOKEN, Network, find_network
from vr_trt.engines.profiles import Profile, load_profiles

GIB = 1 << 30
CARDS = (8, 12, 16, 24, 32, 48, 80, 141)  # GB, as they are sold
USABLE = 0.95  # not measured: a desktop and fragments take the rest
LIMIT = 2**31  # elements of a tensor: from there on nobody has shown that kernels are right


Beside = Callable[[Profile, Settings], int]  # bytes that a run takes beside its networks


def nothing_beside(profile: Profile, settings: Settings) -> int:
    """Of a run whose host feeds the networks."""
    return 0


def usable_bytes(card: int) -> int:
    """Of a card sold with so many GB, which are GiB."""
    return int(card * GIB * USABLE)


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
class Fit:
    """A profile and the settings with which it fits."""

    profile: Profile
    settings: Settings
    budget: Budget
    beside: int  # bytes, as long as the run lasts
    indexable: bool  # no tensor has 2^31 elements

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment."""
        return self.budget.peak + self.beside


def fits(
    network: Network, profile: Profile, memory: int, beside: Beside = nothing_beside
) -> list[Fit]:
    """How `profile` fits into `memory` bytes: fp8 last, then what moves least first.

    As on one GPU, where engines of a shot's first call stay open.
    """
    canvas, no_yes = wide_canvas(profile), (False, True)
    found = []
    for precision, cut, streamed, host in product(("bf16", "fp8"), no_yes, no_yes, no_yes):
        settings = Settings(
            precision=precision, cut=cut, streamed=streamed, host_states=host, starts_stay=True
        )
        if network.has(cut=cut):
            taken = budget(network, canvas, settings)
            small = largest_tensor(network, canvas, cut=cut) < LIMIT
            fit = Fit(
                profile=profile,
                settings=settings,
                budget=taken,
                beside=beside(profile, settings),
                indexable=small,
            )
            if fit.peak <= memory:
                found.append(fit)
    return sorted(
        found,
        key=lambda f: (
            not f.indexable,
            f.settings.precision == "fp8",
            f.budget.moved,
            f.settings.cut,
        ),
    )


def largest_fit(
    network: Network, memory: int, beside: Beside = nothing_beside, *, indexable: bool = True
) -> Fit | None:
    """The largest profile that fits into `memory` bytes; with `indexable` False, by memory alone."""
    for profile in reversed(load_profiles().values()):
        for fit in fits(network, profile, memory, beside):
            if fit.indexable or not indexable:
                return fit
    return None


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


def card_use(
    model: str, canvas: Canvas, settings: Settings, memory: int, beside: Beside = nothing_beside
) -> CardUse | None:
    """Of a card with `memory` bytes; None for a model without a law. `beside`: for the advice."""
    if model not in NETWORKS:
        return None
    network, usable = NETWORKS[model], int(memory * USABLE)
    best = largest_fit(network, usable, beside)
    advice = f"--profile {best.profile.name} fits ({best.settings})" if best else "no profile fits"
    needed = budget(network, canvas, settings).peak
    return CardUse(needed=needed, usable=usable, advice=advice)


def card_rows(models: Sequence[str], beside: Beside) -> Iterator[dict[str, Any]]:
    """The largest profile for every card and each of `models`; None where none fits."""
    for card in CARDS:
        for model in models:
            fit = largest_fit(find_network(model), usable_bytes(card), beside)
            row: dict[str, Any] = {"card": f"{card} GB", "model": model}
            if fit is None:
                yield row | {
                    name: None for name in ("profile", "settings", "fullest", "gib", "moved")
                }
                continue
            yield row | {
                "profile": fit.profile.name,
                "settings": str(fit.settings),
                "fullest": fit.budget.fullest,
                "gib": round(fit.peak / GIB, 1),
                "moved": round(fit.budget.moved / 1e9, 1),
            }


def card_table(models: Sequence[str], beside: Beside) -> list[str]:
    """`card_rows` as the lines of a Markdown table."""
    names = ("card", "model", "largest profile", "settings", "fullest moment", "GiB then",
             "GB moved a frame")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in card_rows(models, beside):
        cells = ("none" if value is None else str(value) for value in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return lines
