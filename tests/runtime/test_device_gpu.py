"""The loop on a real GPU, with the bodies of the recorded device's tests. Never executed by us."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.device_runs import YUV10, Setting, assert_equal, assert_near, check_shots, restored

from vr_trt.runtime.cuda import CudaDevice
from vr_trt.runtime.device_tensor import DeviceTensor
from vr_trt.runtime.shot import Shot

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "choices",
    [{}, {"cut": True}, {"step": 2, "overlap": 2}, {"pixel": YUV10, "correction": "none"}],
    ids=str,
)
def test_frames_are_those_of_the_host(tmp_path: Path, choices: dict[str, Any]) -> None:
    setting = Setting(folder=tmp_path / "model", **choices)
    stages = setting.on_gpu()
    try:
        check_shots(setting, stages, assert_near)
    finally:
        stages.close()


def test_every_run_gives_the_same_bits(tmp_path: Path) -> None:
    """What a race would spoil now and then."""
    setting = Setting(folder=tmp_path / "model", size=(320, 180))
    frames = setting.frames(60)
    stages = setting.on_gpu()
    runs = []
    for _ in range(5):
        shot = Shot(stages.begin(setting.host_stages()), setting.profile)
        runs.append(restored(shot, frames))
    stages.close()
    for run in runs[1:]:
        assert_equal(run, runs[0])


@pytest.mark.parametrize("source", ["float32", "float16", "bf16", "uint16"])
@pytest.mark.parametrize("to", ["float32", "float16", "bf16", "uint16"])
def test_moves_convert(source: str, to: str) -> None:
    if "uint16" in (source, to) and not {"float32", "uint16"} >= {source, to}:
        pytest.skip("code values become float32 and nothing else")
    device = CudaDevice()
    stream = device.stream()
    values = (np.arange(2048, dtype=np.float32) % 256).reshape(1, 2, 4, 16, 16)  # exact in all
    came = DeviceTensor(device, stream, values.shape, source)
    goes = DeviceTensor(device, stream, (1, 2, 3, 16, 16), to)
    came.put(values)
    device.move(goes.region(range(3)), came.region(range(1, 4)), stream)
    np.testing.assert_array_equal(goes.numpy(), values[:, :, 1:4])


def test_a_blend_is_that_of_the_host() -> None:
    device = CudaDevice()
    stream = device.stream()
    random = np.random.default_rng(0)
    older, newer = random.standard_normal((2, 3000)).astype(np.float32)
    to, old, new = (DeviceTensor(device, stream, (3000,), "float32") for _ in range(3))
    old.put(older)
    new.put(newer)
    share = np.float32(1 / 3)
    device.blend(to.region(), old.region(), new.region(), float(share), stream)
    np.testing.assert_array_equal(to.numpy(), (1 - share) * older + share * newer)
