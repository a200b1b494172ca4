"""Another implementation beside ours: `vr-trt bench latency --against FOLDER`.

FOLDER holds `adapter.py` with two functions, which run in a process of their own:

    def load():  # read the weights; called once, and part of the cold start
    def restore(frames):  # numpy uint8 [F, H, W, 3] RGB at the output's size, to the same, restored

Decoding, the bicubic resize before `restore`, and encoding with the sound are ours, the same for all.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import output_pixel, video_pixel
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.stage_trace import stage_call
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.writer import Writer

FILE = "adapter.py"
Frames = NDArray[np.uint8]  # [F, H, W, 3] RGB


class Adapter(Protocol):
    """What is timed."""

    def load(self) -> None:
        """Get ready."""

    def restore(self, frames: Frames) -> Frames:
        """The frames, restored."""


def open_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`; UsageError where it has none, or one that lacks a function."""
    path = folder / FILE
    spec = importlib.util.spec_from_file_location("adapter", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"{folder} holds no {FILE}: `vr_trt/bench/{FILE}` says what it must be")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))  # what it imports may lie beside it
    spec.loader.exec_module(module)
    if missing := [name for name in ("load", "restore") if not hasattr(module, name)]:
        raise UsageError(f"{path} has no function {missing[0]}(): see vr_trt/bench/{FILE}")
    return cast(Adapter, module)


def restore_with(adapter: Adapter, source: Path, target: Path, short_side: int) -> int:
    """Restore a clip by an adapter that is loaded; the number of frames. To be run in a trace."""
    info = probe(source)
    sizes = canvas(info.width, info.height, short_side)
    codec = Encoding().codec_for(target, info.pixel.transfer)
    pixel = output_pixel(info.pixel, sizes.out_w, sizes.out_h, image=False)
    spec = OutputSpec(
        path=target,
        width=sizes.out_w,
        height=sizes.out_h,
        pixel=video_pixel(pixel, codec, None),
        codec=codec.name,
        overwrite=True,
    )
    pixels = PixelStages(
        Picture(width=info.width, height=info.height, pixel=info.pixel),
        Picture(width=sizes.out_w, height=sizes.out_h, pixel=spec.pixel),
        sizes,
        "none",  # correcting colours is the adapter's
    )
    with Reader(source, info) as reader:
        frames = list(_traced(reader))
    given = _to_pictures(pixels.to_model(frames)[:, :, :, : sizes.out_h, : sizes.out_w])
    with stage_call("restore"):
        restored = _checked(adapter.restore(given), given)
    with Writer(spec, info) as writer:
        for frame in pixels.to_video(_to_x(restored), frames):
            with stage_call("write"):
                writer.write(frame)
        with stage_call("write"):
            writer.close()
    return len(frames)


def _traced(reader: Reader) -> Any:
    frames = iter(reader)
    while True:
        with stage_call("read"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _to_pictures(x: NDArray[np.float32]) -> Frames:  # [1, 3, F, H, W] in -1..1
    levels = np.rint((x[0].transpose(1, 2, 3, 0) + 1) * np.float32(127.5))
    return np.ascontiguousarray(levels.astype(np.uint8))


def _to_x(frames: Frames) -> NDArray[np.float32]:
    x = frames.astype(np.float32) / np.float32(127.5) - 1
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)[None])


def _checked(restored: Frames, given: Frames) -> Frames:
    if not isinstance(restored, np.ndarray) or restored.dtype != np.uint8:
        raise UsageError("the adapter's restore() must give uint8 frames as a numpy array")
    if restored.shape != given.shape:
        raise UsageError(
            f"the adapter gave frames of {list(restored.shape)} for {list(given.shape)}: it must "
            "keep number and size"
        )
    return restored
