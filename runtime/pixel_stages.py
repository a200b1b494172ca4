"""The pixels' way in and out: planes to the networks' x and back, by the graphs of engines/pixels.

Everything that depends on the video (matrix, range, siting, sizes) is an input of those graphs,
made once here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vr_trt.errors import DamagedInputError, ModelError
from vr_trt.kernels.detail import PUBLISHED_DETAIL, wavelet_name
from vr_trt.kernels.resample import (
    AxisSiting,
    chroma_down_matrix,
    chroma_up_matrix,
    resize_matrix,
)
from vr_trt.runtime import onnxruntime_session
from vr_trt.runtime.canvas import Canvas
from vr_trt.runtime.colour import from_rgb, limits, to_rgb
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.model import EMBEDDED
from vr_trt.runtime.onnxruntime_session import OrtOptions, OrtSession
from vr_trt.runtime.session import Array, Session, Tensor, call

Correction = Literal["wavelet", "lab", "adain", "none"]
Inputs = dict[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What a picture's planes are, on one side of the networks."""

    width: int
    height: int
    pixel: PixelFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelWay:
    """What frames are before, between and after the networks."""

    source: Picture
    target: Picture
    canvas: Canvas
    correction: Correction
    detail: Sequence[float] = PUBLISHED_DETAIL  # the model's, see `kernels.detail`


class PixelStages:
    """to_model and to_video for one source, target and canvas."""

    def __init__(
        self,
        source: Picture,
        target: Picture,
        canvas: Canvas,
        correction: Correction,
        options: OrtOptions | None = None,
        sessions: tuple[Session, Session] | None = None,
        detail: Sequence[float] = PUBLISHED_DETAIL,
    ) -> None:
        """`sessions`: to_model and to_video of a backend for this very way; else the CPU's graphs.

        `detail` is the model's, for the wavelet; ModelError where there is no graph for it.
        """
        self._source = source
        self._target = target
        self._to_model, self._to_video = sessions or (
            _open(pixel_graph("to_model", source.pixel), options),
            _open(pixel_graph(f"to_video_{graph_name(correction, detail)}", target.pixel), options),
        )
        self._to_model_inputs = to_model_inputs(source, canvas)
        self._to_video_inputs = to_video_inputs(target)

    def to_model(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        """F frames of the source as x [1, 3, F, Hp, Wp] float32 in -1..1."""
        # Frame by frame: a source may be far larger than the canvas.
        return np.concatenate([self._model_frame(frame).numpy() for frame in frames], axis=2)

    def to_video(self, x: Array, frames: Sequence[Frame]) -> Iterator[Frame]:
        """x [1, 3, F, Hp, Wp] as frames of the target, with the timestamps of the source's."""
        for i, frame in enumerate(frames):
            inputs: dict[str, Array | Tensor] = dict(self._to_video_inputs)
            inputs["x"] = x[:, :, i : i + 1]
            if "reference" in self._to_video.inputs:
                # Made a second time: the source's planes wait in a fraction of its memory.
                inputs["reference"] = self._model_frame(frame)
            outputs = call(self._to_video, inputs, "to_video")
            # Copies: frames wait for the writer, and would pin the backend's memory in pieces.
            y, u, v = (outputs[name].numpy()[0].copy() for name in "yuv")
            yield Frame((y, u, v), frame.pts, frame.duration)

    def _model_frame(self, frame: Frame) -> Tensor:
        """One frame as x [1, 3, 1, Hp, Wp]."""
        check_size(frame, self._source)
        inputs: dict[str, Array | Tensor] = dict(self._to_model_inputs)
        inputs |= {name: plane[None] for name, plane in zip("yuv", frame.planes, strict=True)}
        return call(self._to_model, inputs, "to_model")["x"]

    def cancel(self) -> None:
        """Stop what runs, from any thread."""
        self._to_model.cancel()
        self._to_video.cancel()


def graph_name(correction: Correction, detail: Sequence[float]) -> str:
    """How a correction is called in the names of pixel graphs."""
    return wavelet_name(detail) if correction == "wavelet" else correction


def check_size(frame: Frame, source: Picture) -> None:
    """DamagedInputError for a frame of another size than the source's."""
    if (frame.width, frame.height) != (source.width, source.height):
        raise DamagedInputError(
            f"the picture's size changes from {source.width}x{source.height} to "
            f"{frame.width}x{frame.height}: split the input there"
        )


def dither_thresholds(height: int, width: int) -> NDArray[np.float32]:
    """[H, W] in (0, 1): interleaved gradient noise, neighbours far apart and no visible grid.

    The same for every frame, so that still areas stay still. Source: Jimenez, "Next generation
    post processing in Call of Duty: Advanced Warfare", SIGGRAPH 2014.
    """
    x = np.arange(width, dtype=np.float64)
    y = np.arange(height, dtype=np.float64)[:, None]
    noise = (52.9829189 * ((0.06711056 * x + 0.00583715 * y) % 1)) % 1
    return noise.clip(1 / 512, 511 / 512).astype(np.float32)


def pixel_graph(stage: str, pixel: PixelFormat, wide: int = 16) -> Path:
    """The graph of to_model or to_video_* for planes of that kind; sizes are open.

    `wide`: how more than 8 bits come, 16 as uint16, 32 as float32 for backends that lack it.
    """
    sampling = "sub" if pixel.subsampled else "full"
    return EMBEDDED / "pixels" / f"{stage}_{sampling}_{8 if pixel.bits == 8 else wide}.onnx"


def _open(path: Path, options: OrtOptions | None) -> OrtSession:
    if not path.is_file():
        raise ModelError(f"{path} is missing: install vr-trt again")
    return onnxruntime_session.load(path, options)


def to_model_inputs(source: Picture, canvas: Canvas) -> Inputs:
    """What a source's planes mean and how they are resized: the same for every frame."""
    inputs: Inputs = {
        "to_rgb": to_rgb(source.pixel),
        "rows": resize_matrix(source.height, canvas.out_h, canvas.padded_h),
        "cols": resize_matrix(source.width, canvas.out_w, canvas.padded_w).T,
    }
    if source.pixel.subsampled:
        rows, cols = _chroma_axes(source, up=True)
        inputs |= {"chroma_rows": rows, "chroma_cols": cols.T}
    return _contiguous(inputs)


def to_video_inputs(target: Picture) -> Inputs:
    """What a target's planes mean: the same for every frame."""
    inputs: Inputs = {
        "from_rgb": from_rgb(target.pixel),
        "dither": dither_thresholds(target.height, target.width),
        "limits": limits(target.pixel),
    }
    if target.pixel.subsampled:
        rows, cols = _chroma_axes(target, up=False)
        inputs |= {"chroma_rows": rows, "chroma_cols": cols.T}
    return _contiguous(inputs)


def _chroma_axes(picture: Picture, up: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Chroma resampling of the rows and of the columns, each [to, from]."""
    pixel = picture.pixel
    across, down = pixel.chroma_offset
    return (
        _chroma_axis(picture.height, pixel.chroma[1], down, up),
        _chroma_axis(picture.width, pixel.chroma[0], across, up),
    )


def _chroma_axis(luma: int, factor: int, offset: float, up: bool) -> NDArray[np.float32]:
    make = chroma_up_matrix if up else chroma_down_matrix
    siting: AxisSiting = "co-sited" if offset in (0, factor - 1) else "center"
    matrix = make(luma, -(-luma // factor), factor, siting)
    # A picture that was turned has its samples at the other end of each group: the mirror image.
    return matrix[::-1, ::-1] if factor > 1 and offset == factor - 1 else matrix


def _contiguous(inputs: Inputs) -> Inputs:
    return {name: np.ascontiguousarray(value) for name, value in inputs.items()}
