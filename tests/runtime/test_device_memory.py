"""Regions, plane layouts and traces of a device: the parts that hold no picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded_device import RecordedDevice

from vr_trt.runtime.device_tensor import DeviceTensor
from vr_trt.runtime.device_trace import DeviceTrace
from vr_trt.runtime.frames import PixelFormat
from vr_trt.runtime.plane_layout import ALIGNMENT, PlaneLayout
from vr_trt.runtime.stage_trace import Trace


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 50),
    bits=st.sampled_from([8, 10]),
    chroma=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
)
def test_planes_come_back_from_one_piece_of_memory(
    width: int, height: int, bits: int, chroma: tuple[int, int]
) -> None:
    pixel = PixelFormat(
        bits=bits, layout="yuv", chroma=chroma, matrix="bt709", full_range=False, siting="left"
    )
    layout = PlaneLayout.of(pixel, width, height)
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets)
    random = np.random.default_rng(width)
    shapes = pixel.plane_shapes(width, height)
    y, u, v = (random.integers(0, 1 << bits, shape).astype(pixel.dtype) for shape in shapes)
    memory = np.full(layout.bytes, 0xFF, np.uint8)
    layout.put((y, u, v), memory)
    back = layout.get(memory)
    memory[:] = 0  # they are copies
    for plane, wanted in zip(back, (y, u, v), strict=True):
        np.testing.assert_array_equal(plane, wanted)
    device = RecordedDevice()
    tensor = DeviceTensor(device, device.stream(), (layout.bytes,), "uint8")
    parts = layout.on_device(tensor)
    assert [parts[name].shape() for name in "yuv"] == [(1, *shape) for shape in shapes]
    assert parts["v"].address + parts["v"].region().columns <= tensor.address + layout.bytes


def test_frames_of_a_tensor_are_moved_and_converted() -> None:
    device = RecordedDevice()
    stream = device.stream()
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(1, 2, 3, 4, 5)
    came = DeviceTensor(device, stream, values.shape, "float32")
    goes = DeviceTensor(device, stream, (1, 2, 2, 4, 5), "float16")
    came.put(values)
    device.move(goes.region(range(2)), came.region(range(1, 3)), stream)
    np.testing.assert_array_equal(goes.numpy(), values[:, :, 1:])
    with pytest.raises(ValueError, match="not within 3 frames"):
        came.region(range(2, 4))
    with pytest.raises(ValueError, match="do not fit"):
        came.part(400, (100,), "float32")


def test_lent_memory_is_not_given_back() -> None:
    device = RecordedDevice()
    stream = device.stream()
    memory = np.arange(24, dtype=np.uint8)
    tensor = DeviceTensor.lent(device, stream, device.lend(memory) + 8, (1, 2, 2, 1, 2), "uint16")
    np.testing.assert_array_equal(tensor.numpy().reshape(-1), memory[8:].view(np.uint16))
    tensor.put(np.zeros((1, 2, 2, 1, 2)))
    device.synchronize(stream)
    assert not memory[8:].any() and memory[:8].any()
    tensor.free()
    del tensor
    device.synchronize(stream)
    assert "free" not in device.asked and len(device.memory) == 1


def test_spans_without_events_are_left_out_and_counted(tmp_path: Path) -> None:
    device = RecordedDevice()
    stream = device.stream()
    trace = Trace(tmp_path / "trace.json")
    spans = DeviceTrace(device, {stream: "main"}, trace, pairs=2)
    for _ in range(3):
        with spans.span(stream, "stage"):
            pass
    assert spans.missed == 1
    device.synchronize(stream)
    with spans.span(stream, "stage"):  # the first ones are done, and their events free again
        pass
    device.synchronize(stream)
    spans.end()
    trace.close()
    assert spans.missed == 1 and trace.stages["stage"].calls == 3
    assert not device.events
    events = json.loads((tmp_path / "trace.json").read_text())
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} == {"device: main"}
