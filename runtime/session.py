"""What the runtime asks of a backend: one stage, loaded, with inputs bound by name.

A backend gives a function `load(plan) -> Session`. Outputs stay where the backend made them, or are
written where the caller wants them: the state of one call is the next one's without a copy.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.stage_trace import stage_call

Array = NDArray[Any]


class Tensor(Protocol):
    """An array that a backend owns, on the host or on a device."""

    def shape(self) -> Sequence[int]:
        """Its sizes."""

    def numpy(self) -> Array:
        """It on the host, without a copy where it is there already."""


class Session(Protocol):
    """One stage's graph, ready to run."""

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Names and shapes of the inputs; None where a size is not fixed."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs, in the graph's order."""

    @property
    def on_device(self) -> bool:
        """Whether outputs lie on a device: there they stay from call to call.

        Otherwise an array may be bound to an output, and states are (see runtime/state_pool.py).
        """

    def bind(self, name: str, value: Array | Tensor) -> None:
        """Set the input `name` of the next call, or the array that its output `name` is written to.

        An input must not change until the call is done.
        """

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        """Run with what is bound (in order with `stream`, on a device) and give the outputs."""

    def cancel(self) -> None:
        """Make the call in progress and every later one end with InterruptedRun, from any thread."""


def host_floats(tensor: Tensor) -> NDArray[np.float32]:
    """A copy of a tensor on the host in float32, whatever precision the graph works in.

    A copy, for what is small and outlives its call would pin the backend's memory in pieces.
    """
    return np.array(tensor.numpy(), dtype=np.float32)


def call(
    session: Session, bound: Mapping[str, Array | Tensor], stage: str = "stage"
) -> dict[str, Tensor]:
    """Bind all of `bound`, run, give the outputs; `stage` names the call in a trace."""
    with stage_call(stage):
        for name, value in bound.items():
            session.bind(name, value)
        return session.enqueue()
