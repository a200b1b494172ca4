"""A film on the triton backend, by the loop on a recorded device and fed by the host."""

from dataclasses import dataclass, replace

import onnx
import pytest
import torch
from tests import triton_stand_in
from tests.device_runs import Setting
from tests.recorded_device import RecordedDevice
from tests.tensorrt_stand_in import Sizes
from tests.triton_stand_in import GraphStage, Loan, recorded_stages

from vr_trt.engines import triton_pixels
from vr_trt.engines.triton_stages import Shared
from vr_trt.runtime import triton_loop, triton_session
from vr_trt.runtime import triton_pixels as runtime_pixels
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_memory import ACROSS_THE_HOST, CardWay
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import PixelStages
from vr_trt.runtime.triton_pixels import open_way, pixel_work

_KERNELS = ("ToModel", "ToVideo", "Wavelet", "ColourMatch")


@dataclass(kw_only=True)
class TritonSetting(Setting):
    """Its sessions are the backend's own; what they run are stand-ins of the kernels."""

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
        return model

    def on_device(
        self, monkeypatch: pytest.MonkeyPatch, way: CardWay = ACROSS_THE_HOST
    ) -> DeviceStages:
        self.prepare(monkeypatch)
        return device_stages(self.model(), self.way, self.profile, 7, way)

    def host_stages(self, model: Model | None = None) -> HostStages:
        """With sessions of their own, or with those of a model that the loop has opened."""
        way = self.way
        pixels = PixelStages(
            way.source, way.target, way.canvas, way.correction, sessions=open_way(way, "cpu")
        )
        return HostStages(model or self.model(), pixels, self.profile, 7)


def stand_in(monkeypatch: pytest.MonkeyPatch, device: RecordedDevice, sizes: Sizes) -> None:
    """From now on the backend's stages are stand-ins; the fake model's symbols have `sizes`."""
    loan, stream, cpu = Loan(device), device.stream(), torch.device("cpu")
    arena = 64 * sizes["H"] * sizes["W"]  # bytes: more than either end of a coder
    shared = lambda plans: Shared(cpu, torch.zeros(arena, dtype=torch.uint8))
    monkeypatch.setattr(triton_session, "open_device", shared)
    stage = lambda plan, shared: GraphStage(plan, sizes, shared)
    monkeypatch.setattr(triton_session, "open_stage", stage)
    for name in _KERNELS:
        monkeypatch.setattr(triton_pixels, name, getattr(triton_stand_in, name))
    on_cpu = lambda frames, bits, **_: pixel_work(frames, bits, device="cpu")
    monkeypatch.setattr(runtime_pixels, "pixel_work", on_cpu)
    monkeypatch.setattr(triton_loop, "cuda_device", lambda: device)
    monkeypatch.setattr(triton_loop, "LoopedStage", recorded_stages(loan))
    monkeypatch.setattr(triton_loop.TritonLoop, "stream", property(lambda loop: stream))
