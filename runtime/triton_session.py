"""Stages of the `triton` backend: PyTorch and our kernels, captured once as a CUDA graph.

Needs torch, so only this backend imports it. On the CPU, where Triton interprets, a stage runs
without a graph: that is for tests. The graph has not been executed by us yet: no GPU was at hand.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from types import MappingProxyType

import numpy as np
import torch
from triton import TritonError

from vr_trt.engines.static_stage import StaticStage
from vr_trt.engines.triton_stages import Shared, open_stage
from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError
from vr_trt.runtime.card_turns import CardTurns
from vr_trt.runtime.cuda import cuda_device
from vr_trt.runtime.session import Array, Tensor

Enter = Callable[[int | None], None]
_LEFT = "next."  # how the names of states begin that a call leaves
_LONGEST = 300  # letters of another's words in a message
_WARM_UPS = 2  # runs before the capture: kernels are compiled, libraries allocate


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTensor:
    """A `vr_trt.runtime.session.Tensor` of PyTorch."""

    value: torch.Tensor
    done: torch.cuda.Event | None = None  # when it is written, whatever stream writes it

    def shape(self) -> Sequence[int]:
        return tuple(self.value.shape)

    def numpy(self) -> Array:
        """It on the host, when the device is done with it; bf16, which numpy lacks, as fp32."""
        if self.done is not None:
            self.done.synchronize()
        value = self.value.float() if self.value.dtype == torch.bfloat16 else self.value
        return value.cpu().numpy()


class TritonSession:
    """One stage; a `vr_trt.runtime.session.Session`.

    The states that a stage leaves, `next.*`, lie where the following call reads them and are not
    copied: there is one shot at a time. Every other output is copied out, so that it outlives the
    next call.
    """

    on_device = True

    def __init__(
        self,
        stage: StaticStage,
        name: str,
        stream: torch.cuda.Stream | None = None,
        enter: Enter = lambda stream: None,
    ) -> None:
        """Captures the stage; MemoryBudgetError where it does not fit.

        `stream`: where it runs unless said otherwise; None: on PyTorch's current one. `enter` makes
        it its part's turn, in order with a stream; None: its own.
        """
        self._stage, self._name, self._own_stream = stage, name, stream
        self.enter = enter
        self._inputs = dict(stage.inputs)
        self._device = next(iter(self._inputs.values())).device
        self._bound: dict[str, Array | Tensor] = {}
        self._cancelled = False
        self._on_gpu = self._device.type == "cuda"
        self._graph = self._opened() if self._on_gpu else None

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        return MappingProxyType({name: tuple(x.shape) for name, x in self._inputs.items()})

    @property
    def outputs(self) -> Sequence[str]:
        return tuple(self._stage.outputs)

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Inputs and outputs by name, where they lie: always in the same places."""
        return MappingProxyType({**self._inputs, **self._stage.outputs})

    @property
    def own_stream(self) -> torch.cuda.Stream | None:
        """Where it runs unless said otherwise."""
        return self._own_stream

    def bind(self, name: str, value: Array | Tensor) -> None:
        if name not in self._inputs:
            raise ModelError(f"{self._name} has no input {name!r}: it is not the stage meant")
        given = tuple(value.shape if isinstance(value, np.ndarray) else value.shape())
        if given != tuple(self._inputs[name].shape):
            raise ModelError(
                f"{self._name} takes {name} of {list(self._inputs[name].shape)}, not of "
                f"{list(given)}: it was made for another size"
            )
        self._bound[name] = value

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        bound, self._bound = self._bound, {}
        if missing := sorted(set(self._inputs) - set(bound)):
            raise ModelError(f"{self._name} was called without {', '.join(missing)}: bind them")
        self.enter(stream)
        with self._on(stream):
            for name, value in bound.items():
                self._put(self._inputs[name], value)
            self._run()
            kept = {
                name: x if name.startswith(_LEFT) else x.clone()
                for name, x in self._stage.outputs.items()
            }
            done = torch.cuda.current_stream().record_event() if self._on_gpu else None
        if self._cancelled:
            raise InterruptedRun(f"{self._name} was stopped")
        return {name: DeviceTensor(value, done) for name, value in kept.items()}

    def replay(self, stream: int) -> None:
        """Make the outputs of what lies in the inputs, in order with `stream`; nothing is waited for.

        It must be its turn. What lies there is lost with the next call of a stage with which memory
        is shared.
        """
        with self._on(stream):
            self._run()

    def cancel(self) -> None:
        self._cancelled = True

    def _opened(self) -> torch.cuda.CUDAGraph:
        """`_captured`; ModelError for what compilers, Triton and PyTorch say on a stage's first run."""
        try:
            return self._captured()
        except (RuntimeError, TritonError, CalledProcessError) as error:
            said = " ".join(str(error).split())[:_LONGEST]
            raise ModelError(
                f"{self._name} does not start on the GPU ({said}): see vr-trt doctor, or choose "
                "another --backend"
            ) from None

    def _put(self, place: torch.Tensor, value: Array | Tensor) -> None:
        """Copy a bound value to where the stage reads it, unless it lies there."""
        if isinstance(value, DeviceTensor):
            source = value.value
            if value.done is not None:  # by another session, perhaps on another stream
                torch.cuda.current_stream().wait_event(value.done)
                source.record_stream(torch.cuda.current_stream())
        else:
            source = torch.from_numpy(value if isinstance(value, np.ndarray) else value.numpy())
        if source.data_ptr() != place.data_ptr():
            place.copy_(source)

    def _run(self) -> None:
        if self._cancelled:
            raise InterruptedRun(f"{self._name} was stopped")
        if self._graph is None:
            self._stage.run()
        else:
            self._graph.replay()

    def _on(self, stream: int | None) -> AbstractContextManager[object]:
        if not self._on_gpu:
            return nullcontext()
        if stream is not None:
            return torch.cuda.stream(torch.cuda.ExternalStream(stream, self._device))
        return nullcontext() if self._own_stream is None else torch.cuda.stream(self._own_stream)

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        # On its own stream, after whatever uses the same memory there.
        side = self._own_stream or torch.cuda.Stream(self._device)
        try:
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    self._stage.run()
            current.wait_stream(side)
            # What other threads ask of the device meanwhile does not spoil the capture: a picture's
            # stages are opened when one comes.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self._stage.run()
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"{self._name} does not fit on the GPU: choose a smaller profile ({error})"
            ) from None
        return graph


@dataclass(frozen=True, slots=True)
class TritonDevice:
    """What the stages of a run share, and the copies where parts of it take turns."""

    shared: Shared
    turns: CardTurns | None = None

    def enter(self, stage: str) -> Enter:
        """What makes it the turn of `stage`."""
        return (lambda stream: None) if self.turns is None else partial(self.turns.enter, stage)


def open_device(
    plans: Iterable[Path], device: str = "cuda", parts: Collection[str] = ()
) -> TritonDevice:
    """For the stages of `plans`, of which `parts` take turns (see `engines.rota`).

    ModelError without a GPU, or without what copies; MemoryBudgetError without room.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "the triton backend needs an NVIDIA GPU and a PyTorch built for CUDA, and this one sees "
            "no GPU: use --backend onnxruntime"
        )
    shared = Shared.of(plans, torch.device(device), parts)
    if shared.turns is None or shared.stream is None or not shared.rota.sizes:
        return TritonDevice(shared)
    address, stream = shared.turns.data_ptr(), shared.stream.cuda_stream
    return TritonDevice(shared, CardTurns(cuda_device(), stream, address, shared.rota))


def load(plan: Path, stage: str, device: TritonDevice) -> TritonSession:
    """`stage`, of the file `plan`, ready to run; ModelError where it cannot be loaded.

    What is put in place for it, and its first runs, are in its part's turn.
    """
    shared, enter = device.shared, device.enter(stage)
    with nullcontext() if shared.stream is None else torch.cuda.stream(shared.stream):
        enter(None)
        opened = open_stage(plan, shared)
    return TritonSession(opened, plan.parent.name or plan.stem, shared.stream, enter)
