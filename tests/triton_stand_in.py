"""In place of the triton backend's kernels, where nothing compiles or interprets them: on the CPU.

Networks are the fake model's graphs on tensors that stay where they are, as a `StaticStage` has
them; pixels are the real stages on their kernels' references. Work happens in the order of a
`RecordedDevice`'s stream, on PyTorch's own memory.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from tests.recorded_device import RecordedDevice
from tests.tensorrt_stand_in import Sizes, sizes_of, zeros
from torch import Tensor

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.static_stage import StaticStage
from vr_trt.engines.triton_memory import _tensors
from vr_trt.engines.triton_stages import Shared, _weights
from vr_trt.kernels.colour_match import Axes, match_reference
from vr_trt.kernels.to_model import ToModelTables, to_model_reference
from vr_trt.kernels.to_video import ColourScales, ToVideoTables, to_video_reference
from vr_trt.kernels.wavelet import wavelet_reference
from vr_trt.runtime.triton_loop import LoopedStage

BALLAST = "ballast"


class GraphStage:
    """A graph of the fake model as a `StaticStage`, in bf16 but for its states.

    A coder's ends lie in the arena that all stages share, and a call leaves nothing else there. A
    coder's ballast goes with its count of latents, and a generator has weights: what comes out is
    NaN where they are not what they were.
    """

    def __init__(self, graph: Path, sizes: Sizes, shared: Shared) -> None:
        content = graph.read_bytes()
        model = onnx.load_from_string(content).graph
        self._session = onnxruntime.InferenceSession(content)
        arrays = {value.name: zeros(value, sizes_of(model.name, sizes)) for value in model.input}
        made = self._session.run(None, arrays)
        arrays |= dict(zip([value.name for value in model.output], made, strict=True))
        self._verb = model.name.partition("_")[0]
        states = shared.states.get(self._verb)
        self._arena = Arena(shared.memory)
        self._tensors: dict[str, Tensor] = {}
        for name, array in arrays.items():
            kind, dot, state = name.partition(".")
            if dot and states is not None:
                start = torch.from_numpy(np.array(array))
                self._tensors[f"{kind}.{state}"] = states.setdefault(state, start)
                ballast = states.setdefault(BALLAST, row_of(self._verb)[BALLAST])
                self._tensors[f"{kind}.{BALLAST}"] = ballast
            elif states is not None:
                self._tensors[name] = self._arena.take(array.shape, torch.bfloat16)
            else:
                self._tensors[name] = torch.zeros(array.shape, dtype=torch.bfloat16)
        self._inputs = [value.name for value in model.input]
        self.weights: dict[str, Tensor] = {}
        if states is None:
            plan: Any = SimpleNamespace(stage=model.name, state=row_of(self._verb))
            self.weights = dict(_weights(plan, shared))

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        given = {*self._inputs, f"state.{BALLAST}"}
        return {name: x for name, x in self._tensors.items() if name in given}

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return {name: x for name, x in self._tensors.items() if name not in self.inputs}

    def run(self) -> None:
        outputs = {n: x for n, x in self.outputs.items() if not n.endswith(BALLAST)}
        feeds = {name: self._tensors[name].float().numpy().copy() for name in self._inputs}
        results = self._session.run(list(outputs), feeds)
        whole = self._is_whole()
        self._arena.memory.fill_(0xFF)  # NaN
        for (name, tensor), result in zip(outputs.items(), results, strict=True):
            tensor.copy_(torch.from_numpy(np.asarray(result)))
            if not whole and "." not in name:
                tensor.fill_(torch.nan)
        if (ballast := self._tensors.get(f"next.{BALLAST}")) is not None:
            ballast.fill_(self._ballast("next"))

    def _is_whole(self) -> bool:
        wanted = row_of(self._verb)
        if any(not torch.equal(x, wanted[name]) for name, x in self.weights.items()):
            return False
        ballast = self._tensors.get(f"state.{BALLAST}")
        return ballast is None or bool((ballast == self._ballast("state")).all())

    def _ballast(self, kind: str) -> float:
        """What goes with the count, another one for either coder."""
        return {"encode": 0.25, "decode": 0.5}[self._verb] + float(self._tensors[f"{kind}.count"])


def row_of(verb: str) -> dict[str, Tensor]:
    """What a part would bring, by the verb that its stages begin with: each of another size."""
    if verb == "generator":
        return {"weights": torch.arange(100.0)}
    return {"count": torch.zeros(1), BALLAST: torch.zeros({"encode": 100, "decode": 300}[verb])}


class ToModel:
    """In place of `kernels.to_model.ToModel`."""

    def __init__(self, tables: ToModelTables, device: torch.device) -> None:
        self._tables = tables

    def __call__(self, y: Tensor, u: Tensor, v: Tensor, out: Tensor) -> Tensor:
        return out.copy_(to_model_reference(y, u, v, self._tables))


class Wavelet:
    """In place of `kernels.wavelet.Wavelet`."""

    def __init__(self, height: int, width: int, device: torch.device, *, detail: Any) -> None:
        self._size, self._detail = (height, width), detail

    def __call__(self, restored: Tensor, reference: Tensor, out: Tensor, room: Tensor) -> Tensor:
        height, width = self._size
        ours, theirs = (x[..., :height, :width] for x in (restored, reference))
        return out.copy_(wavelet_reference(ours, theirs, self._detail))


class ColourMatch:
    """In place of `kernels.colour_match.ColourMatch`."""

    tiles = 1

    def __init__(self, axes: Axes, height: int, width: int, device: torch.device) -> None:
        self._axes, self._size = axes, (height, width)

    def __call__(self, restored: Tensor, reference: Tensor, out: Tensor, room: Tensor) -> Tensor:
        height, width = self._size
        ours, theirs = (x[..., :height, :width] for x in (restored, reference))
        return out.copy_(match_reference(ours, theirs, self._axes))


class ToVideo:
    """In place of `kernels.to_video.ToVideo`; of colours that were matched, RGB only."""

    def __init__(self, tables: ToVideoTables, device: torch.device) -> None:
        self._tables = tables

    def __call__(
        self, x: Tensor, y: Tensor, u: Tensor, v: Tensor, match: ColourScales | None = None
    ) -> None:
        if match is not None:
            assert match.axes == "adain"
            scale, shift = match.values.permute(2, 1, 0)[..., None, None]
            x = x * scale + shift
        for plane, made in zip((y, u, v), to_video_reference(x, self._tables), strict=True):
            plane.copy_(made)


class Loan:
    """Memory of PyTorch's under addresses of a recorded device."""

    def __init__(self, device: RecordedDevice) -> None:
        self.device = device
        self._addresses: dict[int, int] = {}  # of storages, by where they lie
        self._kept: list[Tensor] = []

    def address(self, x: Tensor) -> int:
        storage = x.untyped_storage()
        if storage.data_ptr() not in self._addresses:
            everything = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._kept.append(everything)  # so that nothing else comes to lie there
            self._addresses[storage.data_ptr()] = self.device.lend(everything.numpy())
        return self._addresses[storage.data_ptr()] + int(x.storage_offset()) * x.element_size()

    def used_by(self, stage: StaticStage) -> list[int]:
        """Where all memory begins that a stage refers to."""
        named = (*stage.inputs.values(), *stage.outputs.values())
        found = {x.untyped_storage().data_ptr(): x for x in (*named, *_tensors(stage))}
        return [self.address(x) for x in found.values() if x.nbytes]


def recorded_stages(loan: Loan) -> type[LoopedStage]:
    """`LoopedStage` whose graphs are replayed on the loan's device."""

    class RecordedStage(LoopedStage):
        def _address(self, x: Tensor) -> int:
            assert x.is_contiguous()
            return loan.address(x)

        def _replay(self, stream: int) -> None:
            session = self._session
            used = loan.used_by(session._stage)
            loan.device.enqueue(stream, "replay", lambda: session.replay(stream), used, used)

    return RecordedStage
