"""`to_video`: the kernel where no GPU is needed, what it refuses, what the compiler made of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.chips import QUICK, check_fits
from tests.kernel_runs import run

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from tests.pixel_cases import VIDEOS, Video

from vr_trt.kernels.aot import compile_for
from vr_trt.kernels.to_video import ColourScales, ToVideo, to_video_constants, to_video_kernel
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_to_video.py")
FULL_HD = Video(source=(8, 8), out=(1080, 1920), padded=(1088, 1920))
TEN_BITS = Video(
    source=(8, 8), out=(1080, 1920), padded=(1088, 1920), chroma=(1, 1), bits=10, shift=6
)
# What is compiled, for which chip, with which correction.
COMPILED: list[Any] = [(FULL_HD, chip, 0) for chip in QUICK]
COMPILED += [(TEN_BITS, 90, 0), (FULL_HD, 90, 1), (FULL_HD, 90, 2)]
COMPILED += [
    pytest.param(FULL_HD, chip, match, marks=pytest.mark.slow)
    for chip in CHIPS
    for match in (0, 2)
    if chip not in QUICK
]


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=13)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=13)


def signature(video: Video) -> dict[str, str]:
    """The kernel's arguments for an fp16 canvas and contiguous planes of `video`."""
    floats = ("from_rgb", "dither", "limits", "row_weights", "col_weights", "axes", "match")
    plane = "*u8:16" if video.bits == 8 else "*u16:16"
    strides = ("x_channel", "x_frame", "x_row", "y_frame", "y_row", "c_frame", "c_row", "width")
    return {
        "x": "*fp16:16",
        **dict.fromkeys(("y", "u", "v"), plane),
        **dict.fromkeys(strides, "i32:16"),
        **dict.fromkeys(("height", "chroma_height", "chroma_width"), "i32"),
        **dict.fromkeys(floats, "*fp32:16"),
        **dict.fromkeys(("row_first", "col_first"), "*i32:16"),
    }


@pytest.mark.parametrize(("video", "chip", "match"), COMPILED)
def test_every_chip_compiles_it_without_spills(video: Video, chip: int, match: int) -> None:
    tables = video.to_video_tables(np.zeros(video.out, np.float32))
    _, constants = to_video_constants(tables, tuned("to_video", chip))
    fixed = {**constants, "SHIFT": video.shift, "MATCH": match, "y_pixel": 1, "c_pixel": 1}
    compiled = compile_for(to_video_kernel, signature(video), fixed, chip)
    check_fits(compiled, chip, registers=128)
    assert compiled.count("LDL", "STL") == 0


def spoiled(**changes: Any) -> dict[str, Any]:
    video = VIDEOS["yuv420p"]
    planes = video.planes(video.out, np.random.default_rng(0))
    given: dict[str, Any] = dict(zip("yuv", planes, strict=True))
    given["x"] = torch.zeros(3, video.frames, *video.padded)
    return given | {name: change(given[name]) for name, change in changes.items()}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"y": lambda t: t[:, 1:]}, "planes are"),
        ({"u": lambda t: t[:, 1:]}, "planes are"),
        ({"v": lambda t: t[:, 1:]}, "u and v differ"),
        ({"v": lambda t: t.mT.contiguous().mT}, "u and v differ"),
        ({"v": lambda t: t.to(torch.uint16)}, "uint16"),
        ({"x": lambda t: t[:2]}, "to_video: x is"),
        ({"x": lambda t: t[..., :20]}, "to_video: x is"),
        ({"x": lambda t: t.int()}, "int32"),
        ({"x": lambda t: t.mT.contiguous().mT}, "dense rows"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused(changes: dict[str, Any], error: str) -> None:
    video = VIDEOS["yuv420p"]
    convert = ToVideo(video.to_video_tables(np.zeros(video.out, np.float32)), "cpu")
    with pytest.raises((TypeError, ValueError), match=error):
        convert(**spoiled(**changes))
    with pytest.raises(ValueError, match=r"to_video: match is \(3, 2\), not \(2, 3, 2\)"):
        convert(**spoiled(), match=ColourScales(torch.ones(3, 2), "adain"))
