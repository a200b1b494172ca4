"""A film on the triton backend, by the loop on a recorded device and fed by the host."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
import torch
from tests import triton_stand_in
from tests.device_runs import Setting
from tests.recorded_device import RecordedDevice
from tests.tensorrt_stand_in import Sizes
from tests.triton_stand_in import GraphStage, Loan, recorded_stages, row_of

from vr_trt.engines import triton_pixels
from vr_trt.engines.rota import PARTS
from vr_trt.engines.triton_stages import Shared
from vr_trt.runtime import triton_loop, triton_session
from vr_trt.runtime import triton_pixels as runtime_pixels
from vr_trt.runtime.card_turns import CardTurns
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_memory import ACROSS_THE_HOST, CardWay
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import PixelStages
from vr_trt.runtime.triton_pixels import open_way, pixel_work
from vr_trt.runtime.triton_session import Enter, TritonDevice

_VERBS = {"encoder": "encode", "generator": "generator", "decoder": "decode"}
_KERNELS = ("ToModel", "ToVideo", "Wavelet", "ColourMatch")


@dataclass(kw_only=True)
class TritonSetting(Setting):
    """Its sessions are the backend's own; what they run are stand-ins of the kernels."""

    turns: Collection[str] = ()  # parts that take turns on the device

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on the backend's stages are stand-ins, and the loop's device is recorded."""
        stand_in(monkeypatch, self.device, self._sizes())

    def model(self) -> Model:
        """As engines of one size are: with a generator of its own for a picture."""
        model, name = super().model(), "generator_image"
        graph = onnx.load(model._plans["generator"])
        graph.graph.name = name
        onnx.save(graph, self.folder / name)
        model._plans = {**model._plans, name: self.folder / name}
        model.manifest = replace(
            model.manifest, stages={**model.manifest.stages, name: "generator.onnx"}
        )
        model._backends = dict.fromkeys(model.manifest.stages, "triton")
        model._turns = self.turns
        return model

    def on_device(
        self, monkeypatch: pytest.MonkeyPatch, way: CardWay = ACROSS_THE_HOST
    ) -> DeviceStages:
        self.prepare(monkeypatch)
        return device_stages(self.model(), self.way, self.profile, 7, way)

    def host_stages(self, model: Model | None = None) -> HostStages:
        """With sessions of their own, where nothing takes turns, or with those of a model."""
        way, model = self.way, model or replace(self, turns=()).model()
        pixels = PixelStages(
            way.source, way.target, way.canvas, way.correction, sessions=open_way(way, "cpu")
        )
        return HostStages(model, pixels, self.profile, 7)


def stand_in(monkeypatch: pytest.MonkeyPatch, device: RecordedDevice, sizes: Sizes) -> None:
    """From now on the backend's stages are stand-ins; the fake model's symbols have `sizes`."""
    loan, stream = Loan(device), device.stream()
    arena = 64 * sizes["H"] * sizes["W"]  # bytes: more than either end of a coder

    def open_device(plans: Iterable[Path], parts: Collection[str] = ()) -> TritonDevice:
        rows = {part: row_of(_VERBS[part]) for part in PARTS if part in parts}
        shared = Shared.with_room(arena, rows, torch.device("cpu"))
        shared.memory.zero_()
        if not rows:
            return TritonDevice(shared)
        assert shared.turns is not None
        turns = CardTurns(device, stream, loan.address(shared.turns), shared.rota)
        return Synchronized(shared, turns)

    def open_stage(plan: Path, shared: Shared) -> GraphStage:
        """As a CUDA graph is captured: what lies in the states then is lost."""
        stage = GraphStage(plan, sizes, shared)
        stage.run()
        return stage

    monkeypatch.setattr(triton_session, "open_device", open_device)
    monkeypatch.setattr(triton_session, "open_stage", open_stage)
    for name in _KERNELS:
        monkeypatch.setattr(triton_pixels, name, getattr(triton_stand_in, name))
    on_cpu = lambda frames, bits, **_: pixel_work(frames, bits, device="cpu")
    monkeypatch.setattr(runtime_pixels, "pixel_work", on_cpu)
    monkeypatch.setattr(triton_loop, "cuda_device", lambda: device)
    monkeypatch.setattr(triton_loop, "LoopedStage", recorded_stages(loan))
    monkeypatch.setattr(triton_loop.TritonLoop, "stream", property(lambda loop: stream))


class Synchronized(TritonDevice):
    """What the host feeds is done at once, on PyTorch's own memory: copies must be, too."""

    def enter(self, stage: str) -> Enter:
        turns = self.turns
        assert turns is not None

        def enter(stream: int | None) -> None:
            turns.enter(stage, stream)
            if stream is None:
                turns._device.synchronize(turns._stream)

        return enter
