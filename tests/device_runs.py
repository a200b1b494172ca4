"""The fake model's stages on a recorded device, and the host's, for the same film."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tests import tensorrt_stand_in
from tests.fake_model import make_fake_model
from tests.recorded_device import RecordedDevice

from vr_trt.engines.builder import find_builder
from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.pixel_engines import pixel_engine, pixel_spec
from vr_trt.engines.profiles import Profile
from vr_trt.runtime import device_loop
from vr_trt.runtime.canvas import Canvas, canvas
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_memory import ACROSS_THE_HOST, CardWay
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.entry import Entry
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages, PixelWay
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.tensorrt_session import Gpu

BACKEND = "tensorrt-rtx"
Compare = Callable[[list[Frame], list[Frame]], None]
YUV8, YUV10 = (
    PixelFormat(
        bits=bits,
        layout="yuv",
        chroma=(2, 2),
        matrix="bt709",
        full_range=False,
        siting="left",
    )
    for bits in (8, 10)
)


@dataclass(kw_only=True)
class Setting:
    """One film on one device."""

    folder: Path  # of the fake model, made if it is not there
    pixel: PixelFormat = YUV8
    cut: bool = False
    step: int = 1  # latents
    overlap: int = 1
    correction: Correction = "wavelet"
    size: tuple[int, int] = (22, 14)
    device: RecordedDevice = field(default_factory=RecordedDevice)

    @property
    def profile(self) -> Profile:
        return Profile(
            name="test",
            short_side=16,
            window=21,
            overlap=self.overlap,
            latents_per_step=self.step,
            precision="fp32",
            cut=self.cut,
        )

    @property
    def canvas(self) -> Canvas:
        return canvas(*self.size, 16)

    @property
    def way(self) -> PixelWay:
        sizes = self.canvas
        target = output_pixel(self.pixel, sizes.out_w, sizes.out_h, image=False)
        return PixelWay(
            source=Picture(width=self.size[0], height=self.size[1], pixel=self.pixel),
            target=Picture(width=sizes.out_w, height=sizes.out_h, pixel=target),
            canvas=sizes,
            correction=self.correction,
        )

    def model(self) -> Model:
        if not self.folder.exists():
            make_fake_model(self.folder, latents_per_step=self.step, cut=self.cut)
        return Model(self.folder)

    def on_device(
        self, monkeypatch: pytest.MonkeyPatch, way: CardWay = ACROSS_THE_HOST
    ) -> DeviceStages:
        """Stages of the model on the device, the pixels' graphs as their engines."""
        monkeypatch.setattr(device_loop, "pixel_spec", lambda graph, *_: graph)
        engine = lambda graph, spec: SimpleNamespace(plan=graph)
        monkeypatch.setattr(device_loop, "pixel_engine", engine)
        model = self.model()
        model._backends = dict.fromkeys(model.manifest.stages, BACKEND)
        pixels = self._pixel_sizes()
        library = tensorrt_stand_in.library(self.device, self._sizes(), pixels=pixels)
        model._gpus = {
            BACKEND: Gpu(library=library, device=self.device, stream=self.device.stream())
        }
        monkeypatch.setattr(device_loop, "present_gpu", lambda: SimpleNamespace(sm=89))
        return device_stages(model, self.way, self.profile, 7, way)

    def on_gpu(self) -> DeviceStages:
        """The same on the real GPU, its engines built now. Never executed: there was none."""
        gpu = present_gpu()
        assert gpu is not None
        backend = BACKEND if gpu.sm in find_builder(BACKEND).targets else "tensorrt"
        if lacking := find_builder(backend).available():
            pytest.skip(lacking)
        model = self.model()
        model._backends = dict.fromkeys(model.manifest.stages, backend)
        model._plans = {
            stage: self._built(stage, path, backend, gpu.sm) for stage, path in model._plans.items()
        }
        return device_stages(model, self.way, self.profile, seed=7)

    def _built(self, stage: str, graph: Path, backend: str, sm: int) -> Path:
        sizes = tensorrt_stand_in.sizes_of(stage, self._sizes())
        inputs = onnx.load(graph).graph.input
        shapes = {value.name: tensorrt_stand_in.zeros(value, sizes).shape for value in inputs}
        return pixel_engine(graph, pixel_spec(graph, shapes, backend, sm)).plan

    def shot_on_host(self, entry: Entry | None = None) -> Shot:
        return Shot(self.host_stages(), self.profile, entry)

    def host_stages(self) -> HostStages:
        way = self.way
        pixels = PixelStages(way.source, way.target, way.canvas, way.correction)
        return HostStages(self.model(), pixels, self.profile, 7)

    def frames(self, count: int, seed: int = 0) -> list[Frame]:
        """Moving noise, different in every frame."""
        random = np.random.default_rng(seed)
        shapes = self.pixel.plane_shapes(*self.size)
        top, kind = 1 << self.pixel.bits, self.pixel.dtype
        made = []
        for i in range(count):
            y, u, v = (random.integers(0, top, shape).astype(kind) for shape in shapes)
            made.append(Frame((y, u, v), 3 * i, 3))
        return made

    def _sizes(self) -> dict[str, int]:
        wide, high = self.canvas.padded_w, self.canvas.padded_h
        return {
            "H": high,
            "W": wide,
            "H2": high // 2,
            "W2": wide // 2,
            "h": high // 8,
            "w": wide // 8,
            "window": self.profile.window_latents,
            "step": self.step,
        }

    def _pixel_sizes(self) -> dict[str, dict[str, int]]:
        sizes = self.canvas
        padded = {"Hp": sizes.padded_h, "Wp": sizes.padded_w, "F": 1}
        out = {"Wo": sizes.out_w, "Ho": sizes.out_h}
        way, sides = self.way, {}
        for name, picture in (("to_model", way.source), ("to_video", way.target)):
            _, (h, w), _ = picture.pixel.plane_shapes(picture.width, picture.height)
            sides[name] = {**padded, **out, "H": self.size[1], "W": self.size[0], "h": h, "w": w}
        return sides


def leave_out(
    monkeypatch: pytest.MonkeyPatch,
    device: RecordedDevice,
    what: str,
    events: Collection[int],
    waiter: int | None = None,
) -> None:
    """From now on the device leaves out every "wait" for `events`, or every "record" of them.

    Waits of the stream `waiter` alone, if that is given.
    """
    wait, record = device.wait, device.record
    if what == "wait":
        without = lambda s, e: (e in events and waiter in (None, s)) or wait(s, e)
        monkeypatch.setattr(device, "wait", without)
    else:
        monkeypatch.setattr(device, "record", lambda e, s: e in events or record(e, s))


def restored(shot: Shot, frames: Iterable[Frame]) -> list[Frame]:
    """All that comes of a shot."""
    return list(_restored(shot, frames))


def _restored(shot: Shot, frames: Iterable[Frame]) -> Iterator[Frame]:
    for frame in frames:
        yield from shot.push(frame)
    yield from shot.finish()


def check_shots(setting: Setting, stages: DeviceStages, compare: Compare) -> None:
    """Two shots, one less than two windows and one longer, beside the host's."""
    for count in (23, 47):
        frames = setting.frames(count)
        shot = Shot(stages.begin(setting.host_stages()), setting.profile)
        compare(restored(shot, frames), restored(setting.shot_on_host(), frames))


def assert_near(ours: list[Frame], theirs: list[Frame]) -> None:
    """Within a code value, for sums are taken in another order; the same times."""
    assert [(f.pts, f.duration) for f in ours] == [(f.pts, f.duration) for f in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine.planes, other.planes, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert np.abs(a.astype(np.int32) - b.astype(np.int32)).max() <= 1


def assert_equal(ours: list[Frame], theirs: list[Frame]) -> None:
    """The same frames, bit for bit, at the same times."""
    assert [(f.pts, f.duration) for f in ours] == [(f.pts, f.duration) for f in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine.planes, other.planes, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
