"""What a stage of the `triton` backend holds on the card, from the buffers that it plans.

Everything a stage needs is made when it is opened, so a stage that was laid out as shapes tells it
exactly. What cannot be seen there are the driver, libraries and compiled kernels.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial

from torch import Tensor, nn

from vr_trt.engines.static_arena import row_bytes
from vr_trt.engines.triton_card import CardBytes
from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_vae import TritonCoderStage

_OURS = "vr_trt."


def card_bytes(stage: TritonGenerator | TritonCoderStage) -> CardBytes:
    """Of a stage that was laid out; what its calls give out is counted once more, as copies."""
    states = {name: x for name, x in stage.outputs.items() if name.startswith("next.")}
    held = _storages(_tensors(stage))
    for x in (stage.arena.memory, *states.values()):
        held.pop(_storage(x), None)
    given = sum(x.nbytes for name, x in stage.outputs.items() if name not in states)
    weights = stage.weights.values() if isinstance(stage, TritonGenerator) else ()
    for x in weights:
        held.pop(_storage(x), None)
    shared = row_bytes(weights)
    return CardBytes(
        own=sum(held.values()) + given + shared,
        arena=stage.arena.size,
        states=row_bytes(states.values()),
        weights=shared,
    )


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes by storage: what shares one is counted once."""
    return {_storage(x): x.untyped_storage().nbytes() for x in tensors}


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata  # addresses are all alike where there are only shapes


def _tensors(thing: object) -> Iterator[Tensor]:
    """Every tensor that `thing` refers to, however deep in what is ours."""
    if isinstance(thing, Tensor):
        yield thing
        return
    parts: Iterable[object] = ()
    if isinstance(thing, nn.Module):
        parts = (*thing.parameters(), *thing.buffers())
    elif isinstance(thing, partial):
        parts = (*thing.args, *thing.keywords.values())
    elif isinstance(thing, Mapping):
        parts = thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        parts = thing
    elif is_dataclass(thing) and not isinstance(thing, type):
        parts = (getattr(thing, field.name) for field in fields(thing))
    elif type(thing).__module__.startswith(_OURS):
        parts = vars(thing).values()
    for part in parts:
        yield from _tensors(part)
