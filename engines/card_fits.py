"""Which profiles fit a card, on which backend and how: by the laws, before anything is built."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from vr_trt.engines.cache import Canvas
from vr_trt.engines.card_budget import (
    CONTEXT_BYTES,
    Settings,
    budget,
    largest_tensor,
    picture_bytes,
)
from vr_trt.engines.cards import CARDS, GIB, CardUse, usable_bytes, wide_canvas
from vr_trt.engines.memory_law import NETWORKS, find_network
from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile, load_profiles
from vr_trt.engines.rota import PARTS, best_rota, in_words
from vr_trt.engines.selection import OLDEST_TRITON_CHIP
from vr_trt.engines.triton_law import Way, triton_together

LIMIT = 2**31  # elements of a tensor: from there on nobody has shown that kernels are right
OLDEST_BF16_CHIP, OLDEST_FP8_CHIP = 80, 89
BACKENDS = ("tensorrt", "triton")  # that have laws; the first is TensorRT-RTX's, too
NEWEST = 90  # the chip of the table of cards: of those sold now all know E4M3

Beside = Callable[[Profile, str, bool], int]  # of a profile, backend, cut: beside the networks


def nothing_beside(profile: Profile, backend: str, cut: bool) -> int:
    """Of a run whose host feeds the networks."""
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What counts of a GPU."""

    sm: int
    usable: int  # bytes
    turns: bool = True  # whether parts may take turns on it

    @classmethod
    def of(cls, sm: int, memory: int, *, turns: bool) -> "Card":
        """Of a card with `memory` bytes."""
        return cls(sm=sm, usable=usable_bytes(memory), turns=turns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A profile, and how it fits."""

    profile: Profile
    backend: str
    settings: str  # in words
    in_fp8: int  # of generator and VAE
    peak: int  # bytes of the card at the fullest moment
    moved: int = 0  # bytes over the bus for every frame, beside the frames
    host: int = 0  # page-locked bytes, for parts that take turns on the card

    @property
    def rank(self) -> tuple[int, int, bool]:
        """Least first: E4M3 only where 16 bits do not fit, then what moves least."""
        return self.in_fp8, self.moved, self.backend == "triton"

    def __str__(self) -> str:
        return f"--profile {self.profile.name} fits ({self.backend}: {self.settings})"


def fits(
    model: str, profile: Profile, card: Card, beside: Beside = nothing_beside,
    canvas: Canvas | None = None,
) -> list[Fit]:  # fmt: skip
    """How `profile` fits, the best first; on its 16:9 canvas unless another is given."""
    canvas = canvas or wide_canvas(profile)
    found = [
        *_on_tensorrt(model, profile, card, beside, canvas),
        *_on_triton(model, profile, card, beside, canvas),
    ]
    return sorted(found, key=lambda fit: fit.rank)


def _on_tensorrt(
    model: str, profile: Profile, card: Card, beside: Beside, canvas: Canvas
) -> Iterator[Fit]:
    """As on one GPU, where engines of a shot's first call stay open."""
    network = find_network(model)
    for precision, cut in product(_precisions(card.sm), (False, True)):
        if not network.has(cut=cut) or largest_tensor(network, canvas, cut=cut) >= LIMIT:
            continue
        settings = Settings(precision=precision, cut=cut, starts_stay=True)
        peak = budget(network, canvas, settings).peak + beside(profile, "tensorrt", cut)
        if peak <= card.usable:
            yield Fit(
                profile=profile, backend="tensorrt", settings=str(settings),
                in_fp8=int(precision == "fp8"), peak=peak,
            )  # fmt: skip


def _on_triton(
    model: str, profile: Profile, card: Card, beside: Beside, canvas: Canvas
) -> Iterator[Fit]:
    """Where that is too much, parts take turns on the card."""
    widest = find_network(model).vae.channels[1]
    if card.sm < OLDEST_TRITON_CHIP or widest * (canvas.width + 2) * (canvas.height + 2) >= LIMIT:
        return
    frames = FRAMES_PER_LATENT * max(1, canvas.latents - profile.overlap)
    rest = CONTEXT_BYTES + picture_bytes(canvas) + beside(profile, "triton", False)
    for precision, fp8_vae in product(_precisions(card.sm), (False, True)):
        if fp8_vae and card.sm < OLDEST_FP8_CHIP:
            continue
        held = triton_together(model, canvas, Way(precision=precision, fp8_vae=fp8_vae))
        parts = held.parts if card.turns else {}
        rota = best_rota(parts, held.bytes + rest, card.usable)
        if rota is None:
            continue
        words = [precision, *["VAE in E4M3"] * fp8_vae]
        if rota.sizes:
            names = "all" if len(rota.sizes) == len(PARTS) else in_words(rota.sizes)
            words.append(f"{names} take turns")
        yield Fit(
            profile=profile, backend="triton", settings=", ".join(words),
            in_fp8=(precision == "fp8") + fp8_vae, peak=held.bytes + rest - rota.spared,
            moved=rota.moved // frames, host=rota.mirrors,
        )  # fmt: skip


def _precisions(sm: int) -> tuple[str, ...]:
    wide = "bf16" if sm >= OLDEST_BF16_CHIP else "fp16"
    return (wide, "fp8") if sm >= OLDEST_FP8_CHIP else (wide,)


def largest_fit(
    model: str, card: Card, beside: Beside = nothing_beside,
    *, fp8: bool = True, backends: Sequence[str] = BACKENDS,
) -> Fit | None:  # fmt: skip
    """The largest profile that fits, and the best way; without `fp8`, in 16 bits."""
    for profile in reversed(load_profiles().values()):
        for fit in fits(model, profile, card, beside):
            if fit.backend in backends and (fp8 or not fit.in_fp8):
                return fit
    return None


def advise(model: str, profile: Profile, canvas: Canvas, card: Card, beside: Beside) -> str:
    """What would do where TensorRT does not do for a run at `canvas`."""
    for fit in fits(model, profile, card, beside, canvas):
        if fit.backend == "triton":
            return f"--backend triton fits ({fit.settings})"
    return advise_profile(model, card, beside)


def advise_profile(model: str, card: Card, beside: Beside) -> str:
    """The largest profile that would do."""
    best = largest_fit(model, card, beside) if model in NETWORKS else None
    return str(best) if best else "choose a smaller --profile"


def card_use(
    model: str, canvas: Canvas, settings: Settings, card: Card,
    profile: Profile, beside: Beside = nothing_beside,
) -> CardUse | None:  # fmt: skip
    """Of a card by networks that TensorRT runs; None for a model without a law.

    `profile` and `beside` are for the advice.
    """
    if model not in NETWORKS:
        return None
    return CardUse(
        needed=budget(NETWORKS[model], canvas, settings).peak,
        usable=card.usable,
        advice=advise(model, profile, canvas, card, beside),
    )


def card_rows(models: Sequence[str], beside: Beside) -> Iterator[dict[str, Any]]:
    """The largest profile for every card and each of `models` in 16 bits, and with E4M3 if larger.

    `tensorrt` is the largest there, in fp8 where that is larger.
    """
    for size in CARDS:
        card = Card.of(NEWEST, size * GIB, turns=True)
        for model in models:
            other = largest_fit(model, card, beside, backends=BACKENDS[:1])
            tensorrt = f"{other.profile.name}, {other.settings}" if other else None
            before = None
            for fp8 in (False, True):
                fit = largest_fit(model, card, beside, fp8=fp8)
                if fit and fit.profile == before or (fit is None and not fp8):
                    continue
                yield {"card": f"{size} GB", "model": model, **_row(fit), "tensorrt": tensorrt}
                before = fit.profile if fit else None


def _row(fit: Fit | None) -> dict[str, Any]:
    if fit is None:
        return dict.fromkeys(("profile", "backend", "settings", "gib", "moved", "host"))
    return {
        "profile": fit.profile.name,
        "backend": fit.backend,
        "settings": fit.settings,
        "gib": round(fit.peak / GIB, 1),
        "moved": round(fit.moved / 1e9, 1),
        "host": round(fit.host / GIB, 1),
    }


def card_table(models: Sequence[str], beside: Beside) -> list[str]:
    """`card_rows` as the lines of a Markdown table."""
    names = ("card", "model", "largest profile", "backend", "settings", "GiB of the card",
             "GB moved a frame", "GiB of the host", "TensorRT alone")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in card_rows(models, beside):
        cells = ("none" if value is None else str(value) for value in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return lines
