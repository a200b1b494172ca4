"""Which of the backends that can serve a run the card has room for."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from vr_trt.engines.cache import Engine
from vr_trt.engines.card_budget import Settings
from vr_trt.engines.card_fits import Card, advise_profile, card_use, nothing_beside
from vr_trt.engines.cards import GIB, CardUse
from vr_trt.engines.graphs import is_cut
from vr_trt.engines.memory_law import NETWORKS
from vr_trt.engines.profiles import Profile
from vr_trt.engines.selection import CPU, Asked, Machine, Selection, select, usable_backends
from vr_trt.engines.triton_card import Known, triton_use
from vr_trt.engines.triton_law import Way, triton_together
from vr_trt.errors import ModelError
from vr_trt.runtime.card_rings import usual_rings
from vr_trt.runtime.device_memory import on_one_gpu

Choice = tuple[Selection, CardUse | None]  # None on the CPU, and where no law is known


def choose_for_card(
    asked: Asked, machine: Machine, built: Sequence[Engine], model: str, profile: Profile
) -> Choice:
    """What runs, and what it takes of the card.

    Where nobody asked for a backend, the first on the GPU that has room serves, with the loop's
    rings of a film of the profile's own size; where none has, the first of all. ModelError as
    `select`.
    """
    selection = select(asked, machine, built)
    first = selection, card_of(model, profile, selection, machine)
    if asked.backend != "auto" or _has_room(first, profile):
        return first
    for backend in usable_backends(asked, machine)[0]:
        if backend == CPU or backend in selection.backends.values():
            continue
        try:
            found = select(replace(asked, backend=backend), machine, built)
        except ModelError:
            continue  # it has no engines, as the first line of all says
        other = found, card_of(model, profile, found, machine)
        if _has_room(other, profile):
            return replace(found, notes=(_too_large(first), *found.notes)), other[1]
    return first


def card_of(model: str, profile: Profile, selection: Selection, machine: Machine) -> CardUse | None:
    """What a run takes of the card that is here; None where it does not run there."""
    if not selection.on_gpu or machine.sm is None:
        return None
    others = {s: e for s, e in selection.engines.items() if e.spec.backend != "triton"}
    settings = Settings(
        precision=selection.precision,
        cut=is_cut(others),
        streamed=any(e.spec.flags.get("weight_streaming") == "yes" for e in others.values()),
        starts_stay=on_one_gpu(selection),
    )
    able = _has_cuda_python()
    card = Card.of(machine.sm, machine.memory, turns=able)
    beside = usual_rings if on_one_gpu(selection) else nothing_beside
    if "triton" not in selection.backends.values():
        return card_use(model, selection.canvas, settings, card, profile, beside)
    planned = None
    if selection.how == "build" and model in NETWORKS:
        planned = triton_together(model, selection.canvas, Way(precision=selection.precision))
    known = Known(
        overlap=profile.overlap, able=able, planned=planned,
        otherwise=advise_profile(model, card, beside),
    )  # fmt: skip
    return triton_use(model, selection, settings, (machine.sm, machine.memory), known)


def _has_room(choice: Choice, profile: Profile) -> bool:
    """Whether it fits, as far as anybody can say before the film is known."""
    selection, card = choice
    if card is None or not on_one_gpu(selection):
        return card is None or card.fits
    backend = selection.backends["generator"]
    return card.with_more(usual_rings(profile, backend, is_cut(selection.engines))).fits


def _too_large(choice: Choice) -> str:
    selection, card = choice
    assert card is not None
    backend = selection.backends["generator"]
    return (
        f"{backend} is passed over: it needs {card.needed / GIB:.1f} GiB of the card beside the "
        f"film's rings, and {card.usable / GIB:.1f} GiB are usable"
    )


def _has_cuda_python() -> bool:
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None
