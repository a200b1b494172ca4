"""Frames of FFmpeg taken apart into planes, and put together from them, without conversion."""

import ctypes
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.frames import Plane
from vr_trt.runtime.packing import Component, Packing, nearest_planar, packing_of

Planes = tuple[Plane, Plane, Plane]


def take_planes(frame: av.VideoFrame) -> Planes:
    """Owned, contiguous planes of a decoded frame: [H, W], [h, w], [h, w] in native byte order.

    A format without a known arrangement is first unpacked to the nearest planar one, within its
    family. Grey gets neutral chroma of full size.
    """
    packing = packing_of(frame.format.name)
    if packing is None:
        # One thread: with more, swscale was seen to lose pixels now and then.
        frame = frame.reformat(format=nearest_planar(frame.format.name), threads=1)
        packing = packing_of(frame.format.name)
        assert packing is not None, f"{frame.format.name} is planar but not described"
    dtype = np.uint8 if packing.bits == 8 else np.uint16
    taken: list[NDArray[Any]] = []
    for number, component in enumerate(packing.components):
        view = _view(frame, packing, component, _size(frame, packing, number))
        taken.append(np.array(view, dtype=dtype, order="C"))
        if packing.shift:
            taken[-1] >>= packing.shift
    if packing.layout == "gray":
        taken += [np.full_like(taken[0], 1 << (packing.bits - 1)) for _ in range(2)]
    return taken[0], taken[1], taken[2]


def build_frame(
    planes: Planes,  # [H, W], [h, w], [h, w]
    name: str,  # FFmpeg's pixel format
) -> av.VideoFrame:
    """A frame of FFmpeg that holds the code values of the planes, row by row."""
    packing = packing_of(name)
    if packing is None:
        raise ValueError(f"no arrangement is known for the pixel format {name}")
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, name)
    for number, component in enumerate(packing.components):
        size = _size(frame, packing, number)
        if planes[number].shape != size:
            raise ValueError(f"plane {number} is {planes[number].shape}, {name} wants {size}")
        view = _view(frame, packing, component, size)
        view[...] = planes[number] << packing.shift if packing.shift else planes[number]
    return frame


def turn_planes(
    planes: Planes,
    rotation: int,  # degrees clockwise: 0, 90, 180, 270
    mirrored: bool,  # left and right exchanged after turning
) -> Planes:
    """The planes as they are to be looked at; contiguous."""
    if not rotation and not mirrored:
        return planes
    turned: list[Plane] = [np.rot90(plane, k=-(rotation // 90)) for plane in planes]
    if mirrored:
        turned = [plane[:, ::-1] for plane in turned]
    return cast(Planes, tuple(np.ascontiguousarray(plane) for plane in turned))


def _size(frame: av.VideoFrame, packing: Packing, number: int) -> tuple[int, int]:
    if number == 0:
        return frame.height, frame.width
    return -(-frame.height // packing.chroma[1]), -(-frame.width // packing.chroma[0])


def _view(
    frame: av.VideoFrame, packing: Packing, component: Component, size: tuple[int, int]
) -> NDArray[Any]:
    """The component's code values [rows, columns] inside the frame's memory, while it lives."""
    rows, columns = size
    plane = frame.planes[component.plane]
    stride = abs(plane.line_size)
    # A negative line size (bottom-up pictures) means that the first row is the last in memory.
    start = plane.buffer_ptr + min(0, plane.line_size) * (rows - 1)
    memory = (ctypes.c_uint8 * (stride * rows)).from_address(start)
    lines = np.frombuffer(memoryview(memory), np.uint8).reshape(rows, stride)
    if plane.line_size < 0:
        lines = lines[::-1]
    item = np.dtype(packing.item)
    items: NDArray[Any] = lines[:, : stride // item.itemsize * item.itemsize].view(item)
    return items[:, component.offset :: component.step][:, :columns]
