"""The pixel stages of the `triton` backend as sessions, to stand where those of pixel graphs stand.

A session has the inputs of the pixel graph of its kind. Those that depend on the video alone are
given when it is opened, and again with every call if the caller likes; others are refused then.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vr_trt.engines.triton_pixels import (
    Correction,
    Fixed,
    PixelWork,
    ToModelStage,
    ToVideoStage,
)
from vr_trt.errors import ModelError
from vr_trt.kernels.detail import PUBLISHED_DETAIL
from vr_trt.runtime.pixel_stages import PixelWay, to_model_inputs, to_video_inputs
from vr_trt.runtime.session import Array, Tensor
from vr_trt.runtime.triton_session import TritonSession

Precision = Literal["fp32", "fp16", "bf16"]
_PICTURES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TritonPixels:
    """A `vr_trt.runtime.session.Session` whose video is known when it is opened."""

    on_device = True

    def __init__(self, session: TritonSession, fixed: Fixed, name: str) -> None:
        self._session, self._name = session, name
        self._fixed = {key: np.ascontiguousarray(value) for key, value in fixed.items()}

    @property
    def session(self) -> TritonSession:
        """The stage by itself: its inputs are those that change from call to call."""
        return self._session

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        fixed: dict[str, tuple[int | None, ...]] = {k: v.shape for k, v in self._fixed.items()}
        return {**self._session.inputs, **fixed}

    @property
    def outputs(self) -> Sequence[str]:
        return self._session.outputs

    def bind(self, name: str, value: Array | Tensor) -> None:
        if name not in self._fixed:
            self._session.bind(name, value)
        elif value is not self._fixed[name] and not _same(value, self._fixed[name]):
            raise ModelError(
                f"{self._name} was opened for another {name}: open one for every kind of video"
            )

    def enqueue(self, stream: int | None = None) -> dict[str, Tensor]:
        return self._session.enqueue(stream)

    def cancel(self) -> None:
        self._session.cancel()


def pixel_work(
    frames: int,  # of a call
    bits: int,  # of a code value: 8, or up to 16; 32 for codes that lie in fp32
    precision: Precision = "fp32",  # of the networks' pictures
    device: str = "cuda",
) -> PixelWork:
    """What the sessions of one kind of video work on."""
    return PixelWork(
        frames=frames,
        depth={8: torch.uint8, 32: torch.float32}.get(bits, torch.uint16),
        pictures=_PICTURES[precision],
        device=torch.device(device),
    )


def open_to_model(
    fixed: Fixed,  # by the graph's names: to_rgb, rows, cols, and chroma's axes where subsampled
    work: PixelWork,
) -> TritonPixels:
    """Planes to the networks' x; ModelError for tables that do not fit."""
    with _refusals("to_model"):
        stage = ToModelStage(fixed, work)
    return TritonPixels(TritonSession(stage, "to_model"), fixed, "to_model")


def open_to_video(
    fixed: Fixed,  # by the graph's names: from_rgb, dither, limits, and chroma's axes
    work: PixelWork,
    correction: Correction,
    padded: tuple[int, int],  # Hp, Wp: of x
    detail: Sequence[float] = PUBLISHED_DETAIL,
) -> TritonPixels:
    """The networks' x to planes, colours corrected; ModelError for tables that do not fit."""
    with _refusals("to_video"):
        stage = ToVideoStage(fixed, work, correction, padded, detail)
    return TritonPixels(TritonSession(stage, "to_video"), fixed, "to_video")


def open_way(way: PixelWay, device: str = "cuda") -> tuple[TritonPixels, TritonPixels]:
    """to_model and to_video of a film, a frame a call; ModelError for tables that do not fit."""
    return open_way_in(way, device), open_way_out(way, device)


def open_way_in(way: PixelWay, device: str = "cuda") -> TritonPixels:
    """The first of them alone."""
    work = pixel_work(1, way.source.pixel.bits, device=device)
    return open_to_model(to_model_inputs(way.source, way.canvas), work)


def open_way_out(way: PixelWay, device: str = "cuda") -> TritonPixels:
    """The second."""
    work = pixel_work(1, way.target.pixel.bits, device=device)
    padded = way.canvas.padded_h, way.canvas.padded_w
    return open_to_video(to_video_inputs(way.target), work, way.correction, padded, way.detail)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What a kernel's tables say of a video that it cannot serve, as an error of ours."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"no kernel of {name} serves this video: {error}") from None


def _same(value: Array | Tensor, wanted: NDArray[Any]) -> bool:
    """Whether a host's array holds what a session was opened for."""
    return isinstance(value, np.ndarray) and np.array_equal(value, wanted)
