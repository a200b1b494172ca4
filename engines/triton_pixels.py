"""The pixels' way in and out as stages of the `triton` backend: our kernels in fixed buffers.

A stage computes what the pixel graph of its kind does (`export.pixel_graphs`), names and shapes
included. Only what differs from call to call is an input of the stage: matrices, thresholds and
limits are `fixed`, by the names that they have as inputs of the graphs, and become tables of the
kernels once.

Shapes: F frames; H W source luma; h w chroma; Ho Wo output; Hp Wp padded canvas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vr_trt.errors import ModelError
from vr_trt.kernels.colour_match import ColourMatch
from vr_trt.kernels.detail import PUBLISHED_DETAIL
from vr_trt.kernels.to_model import ToModel, to_model_tables
from vr_trt.kernels.to_video import ColourScales, ToVideo, to_video_tables
from vr_trt.kernels.wavelet import Wavelet

Fixed = Mapping[str, NDArray[Any]]
Correction = Literal["wavelet", "lab", "adain", "none"]
TO_MODEL = ("to_rgb", "rows", "cols")
TO_VIDEO = ("from_rgb", "dither", "limits")
CHROMA = ("chroma_rows", "chroma_cols")  # where chroma is subsampled


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelWork:
    """What a stage works on, beside its tables."""

    frames: int
    depth: torch.dtype  # of the planes: uint8, uint16, or fp32 with whole numbers in it
    pictures: torch.dtype  # of what the networks see: fp32 as in the graphs, fp16 or bf16
    device: torch.device


class ToModelStage:
    """A `StaticStage`: planes `y` [F, H, W], `u`, `v` [F, h, w] to `x` [1, 3, F, Hp, Wp] in -1..1."""

    def __init__(self, fixed: Fixed, work: PixelWork) -> None:
        """ModelError for tables that no graph takes."""
        _check_names(fixed, TO_MODEL)
        rows, cols = fixed["rows"], fixed["cols"].T  # [Hp, H], [Wp, W]
        chroma = _chroma(fixed)
        self._convert = ToModel(to_model_tables(fixed["to_rgb"], rows, cols, *chroma), work.device)
        luma = rows.shape[1], cols.shape[1]
        self._planes = _planes(work, luma, [axis.shape[1] for axis in chroma] or luma)
        shape = 1, 3, work.frames, rows.shape[0], cols.shape[0]
        self._x = torch.empty(shape, dtype=work.pictures, device=work.device)

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        return self._planes

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return {"x": self._x}

    def run(self) -> None:
        y, u, v = self._planes.values()
        self._convert(y, u, v, self._x[0])


class ToVideoStage:
    """A `StaticStage`: `x` and, for a correction, `reference` [1, 3, F, Hp, Wp] to planes.

    `y` [F, Ho, Wo], `u`, `v` [F, h, w], the colours corrected.
    """

    def __init__(
        self,
        fixed: Fixed,
        work: PixelWork,
        correction: Correction,
        padded: tuple[int, int],  # Hp, Wp
        detail: Sequence[float] = PUBLISHED_DETAIL,
    ) -> None:
        """ModelError for tables that no graph takes."""
        _check_names(fixed, TO_VIDEO)
        height, width = fixed["dither"].shape
        chroma = _chroma(fixed)
        tables = to_video_tables(fixed["from_rgb"], fixed["dither"], fixed["limits"], *chroma)
        self._convert = ToVideo(tables, work.device)
        self._correction = correction
        names = ("x",) if correction == "none" else ("x", "reference")
        shape = 1, 3, work.frames, *padded
        self._inputs = {
            name: torch.zeros(shape, dtype=work.pictures, device=work.device) for name in names
        }
        small = [axis.shape[0] for axis in chroma] or (height, width)
        self._planes = _planes(work, (height, width), small)
        if correction == "wavelet":
            self._wavelet = Wavelet(height, width, work.device, detail=detail)
            self._corrected = _fp32(work, 3, work.frames, height, width)
            self._room = _fp32(work, 3, work.frames, width, height)
        elif correction != "none":
            self._match = ColourMatch(correction, height, width, work.device)
            self._scales = ColourScales(_fp32(work, work.frames, 3, 2), correction)
            self._room = _fp32(work, 2, work.frames, self._match.tiles, 3, 3)

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return self._planes

    def run(self) -> None:
        x, scales = self._inputs["x"][0], None
        if self._correction == "wavelet":
            reference = self._inputs["reference"][0]
            x = self._wavelet(x, reference, self._corrected, self._room)
        elif self._correction != "none":
            scales = self._scales
            self._match(x, self._inputs["reference"][0], scales.values, self._room)
        y, u, v = self._planes.values()
        self._convert(x, y, u, v, match=scales)


def _check_names(fixed: Fixed, wanted: tuple[str, ...]) -> None:
    given, chroma = set(fixed), set(CHROMA)
    if given - chroma != set(wanted) or given & chroma not in (set(), chroma):
        raise ModelError(
            f"the pixels' stage takes {', '.join(wanted)} and, for subsampled chroma, "
            f"{', '.join(CHROMA)}, not {', '.join(sorted(given))}"
        )


def _chroma(fixed: Fixed) -> list[NDArray[Any]]:
    """Chroma's resampling of rows and columns [to, from]; nothing where it has luma's size."""
    if CHROMA[0] not in fixed:
        return []
    return [fixed["chroma_rows"], np.ascontiguousarray(fixed["chroma_cols"].T)]


def _planes(work: PixelWork, luma: tuple[int, int], chroma: Sequence[int]) -> dict[str, Tensor]:
    sizes: dict[str, Sequence[int]] = {"y": luma, "u": chroma, "v": chroma}
    return {
        name: torch.zeros(work.frames, *size, dtype=work.depth, device=work.device)
        for name, size in sizes.items()
    }


def _fp32(work: PixelWork, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=work.device)
