"""A stage on a device with fixed places for its tensors, captured once as a CUDA graph.

Fixed places make a call one launch, and a graph is valid for as long as they are. What comes and
goes is copied into them, which costs little beside what a stage computes.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from vr_trt.runtime.device_tensor import DeviceTensor, OnDevice
from vr_trt.runtime.lanes import Lanes


class DeviceSession(Protocol):
    """A stage that is enqueued on a stream, taking no memory there and letting nobody wait.

    Sessions of TensorRT (runtime/tensorrt_session.py) read and write where they are told, those of
    the triton backend (runtime/triton_loop.py) in places of their own.
    """

    @property
    def inputs(self) -> Mapping[str, Sequence[int | None]]:
        """By name, with their sizes."""

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every input and output."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Of every input and output; see runtime/device_tensor.py."""

    @property
    def places(self) -> Mapping[str, DeviceTensor]:
        """Of those inputs and outputs that have a place of their own, and can have no other."""

    @property
    def capturable(self) -> bool:
        """Whether a call may become part of a graph; else it is one by itself already."""

    def bind(self, name: str, value: OnDevice) -> None:
        """Set where the input or output `name` of the next call lies."""

    def enqueue(self, stream: int) -> object:
        """Call it with what is bound, in order with `stream`."""


class Call:
    """One way of calling a session."""

    def __init__(
        self,
        lanes: Lanes,
        stream: int,
        named: tuple[str, DeviceSession],  # the stage's name and session
        places: Mapping[str, OnDevice],
    ) -> None:
        """`places` of every input and output.

        A session that is no graph yet is called once now, with what lies there.
        """
        self._lanes, self._stream = lanes, stream
        self._name, self._session = named
        self._places = dict(places)
        self._graph: int | None = None
        if self._session.capturable:
            self._enqueue()
            lanes.device.synchronize(stream)
            lanes.before_start(self._capture)

    def run(self) -> None:
        """Compute the outputs of what lies in the inputs, in order with the stream."""
        with self._lanes.span(self._stream, self._name):
            if self._graph is None:
                self._enqueue()
            else:
                self._lanes.device.launch(self._graph, self._stream)

    def _capture(self) -> None:
        self._graph = self._lanes.graph(self._stream, self._enqueue)

    def _enqueue(self) -> None:
        for name, place in self._places.items():
            self._session.bind(name, place)
        self._session.enqueue(self._stream)


def place(lanes: Lanes, session: DeviceSession, name: str) -> DeviceTensor:
    """A place for one of a session's inputs or outputs; its own, if it has one."""
    if name in session.places:
        return session.places[name]
    return lanes.tensor(session.sizes[name], session.kinds[name])
