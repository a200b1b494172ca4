"""The causal VAE on a device: each part's state in two places, read from one, written to the other.

Where a backend changes states in place, both are the same.
The same calls in the same order as runtime/vae_stream.py, whose text says what they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vr_trt.runtime.device_call import Call, DeviceSession, place
from vr_trt.runtime.device_tensor import OnDevice, tensor_bytes
from vr_trt.runtime.lanes import Lanes

_NEXT, _STATE = "next.", "state."


@dataclass(frozen=True, kw_only=True, slots=True)
class PartNames:
    """The coder, or a half of it."""

    stage: str  # "encode_coarse"
    source: str  # its input
    result: str  # its output


class DeviceVaePart:
    """A start and a step stage on the main stream."""

    def __init__(
        self, lanes: Lanes, names: PartNames, start: DeviceSession, step: DeviceSession
    ) -> None:
        """MemoryBudgetError where there is no room for the tensors."""
        self._ends = names.source, names.result
        # Start and step take turns with the same memory.
        ends = {name: _shared(lanes, name, start, step) for name in self._ends}
        kept = [name.removeprefix(_STATE) for name in step.inputs if name.startswith(_STATE)]
        states = [{name: place(lanes, step, _STATE + name) for name in kept} for _ in range(2)]
        here = {name: pair[0] for name, pair in ends.items()}
        there = {name: pair[1] for name, pair in ends.items()}
        self._places = here, there
        self._start = Call(
            lanes, lanes.main, (f"{names.stage}_start", start), here | _named(_NEXT, states[0])
        )
        self._steps = [
            Call(
                lanes,
                lanes.main,
                (f"{names.stage}_step", step),
                there | _named(_STATE, states[old]) | _named(_NEXT, states[1 - old]),
            )
            for old in (0, 1)
        ]
        self._calls = 0

    def begin(self) -> None:
        """The next call is a shot's first."""
        self._calls = 0

    @property
    def source(self) -> OnDevice:
        """Where the next call reads."""
        return self._places[self._calls > 0][self._ends[0]]

    def run(self) -> OnDevice:
        """Call it; where the result lies, until the next call."""
        number, self._calls = self._calls, self._calls + 1
        call = self._steps[(number - 1) % 2] if number else self._start
        call.run()
        return self._places[number > 0][self._ends[1]]


def _shared(
    lanes: Lanes, name: str, start: DeviceSession, step: DeviceSession
) -> tuple[OnDevice, OnDevice]:
    """One piece of memory as the start's tensor and as the step's, or the sessions' own places."""
    if name in start.places:
        return start.places[name], step.places[name]
    first, later = (
        tensor_bytes(session.sizes[name], session.kinds[name]) for session in (start, step)
    )
    memory = lanes.tensor((max(first, later),), "uint8")
    return (
        memory.part(0, start.sizes[name], start.kinds[name]),
        memory.part(0, step.sizes[name], step.kinds[name]),
    )


def _named(prefix: str, states: Mapping[str, OnDevice]) -> dict[str, OnDevice]:
    return {prefix + name: state for name, state in states.items()}
