"""`to_model`: the kernel where no GPU is needed, what it refuses, what the compiler made of it."""

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
from vr_trt.kernels.to_model import ToModel, to_model_constants, to_model_kernel
from vr_trt.kernels.tuning import CHIPS, tuned

RUNS = Path(__file__).with_name("run_to_model.py")
ENLARGED = Video(source=(540, 960), out=(1080, 1920), padded=(1088, 1920))
KEPT = Video(source=(1080, 1920), out=(1080, 1920), padded=(1088, 1920), chroma=(1, 1), bits=10)
REDUCED = Video(source=(2160, 3840), out=(720, 1280), padded=(720, 1280), bits=10, shift=6)
COMPILED: list[Any] = [*((ENLARGED, chip) for chip in QUICK), (KEPT, 90), (REDUCED, 90)]
COMPILED += [
    pytest.param(ENLARGED, chip, marks=pytest.mark.slow) for chip in CHIPS if chip not in QUICK
]


def test_the_kernel_equals_its_reference_in_the_interpreter() -> None:
    run(RUNS, "cpu", at_least=15)


@pytest.mark.gpu
def test_the_kernel_equals_its_reference_on_a_gpu() -> None:
    run(RUNS, "cuda", at_least=15)


def signature(video: Video) -> dict[str, str]:
    """The kernel's arguments for contiguous planes of `video` and an fp16 canvas."""
    ints = ("row_first", "col_first", "chroma_row_first", "chroma_col_first")
    floats = (
        *("to_rgb", "row_weights", "col_weights"),
        *("chroma_row_weights", "chroma_col_weights"),
    )
    plane = "*u8:16" if video.bits == 8 else "*u16:16"
    return {
        **dict.fromkeys(("y", "u", "v"), plane),
        **dict.fromkeys(("y_frame", "y_row", "c_frame", "c_row", "width", "out_width"), "i32:16"),
        **dict.fromkeys(("height", "out_height"), "i32"),
        **dict.fromkeys(ints, "*i32:16"),
        **dict.fromkeys(floats, "*fp32:16"),
        "x": "*fp16:16",
    }


@pytest.mark.parametrize(("video", "chip"), COMPILED)
def test_every_chip_compiles_it_without_spills(video: Video, chip: int) -> None:
    _, constants = to_model_constants(video.to_model_tables(), tuned("to_model", chip))
    fixed = {**constants, "SHIFT": video.shift, "y_pixel": 1, "c_pixel": 1}
    compiled = compile_for(to_model_kernel, signature(video), fixed, chip)
    check_fits(compiled, chip, registers=168 if video is REDUCED else 128)
    # The canvas is written 16 bytes at a time; a tile of a reduction has too few columns for that.
    assert compiled.count("STG.E.64" if video is REDUCED else "STG.E.128") > 0
    assert compiled.count("LDL", "STL") == 0


def spoiled(**changes: Any) -> dict[str, Any]:
    video = VIDEOS["yuv420p"]
    planes = video.planes(video.source, np.random.default_rng(0))
    given: dict[str, Any] = dict(zip("yuv", planes, strict=True))
    given["out"] = torch.zeros(3, video.frames, *video.padded)
    return given | {name: change(given[name]) for name, change in changes.items()}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"y": lambda t: t[:, 1:]}, "luma plane"),
        ({"u": lambda t: t[:, 1:]}, "chroma"),
        ({"v": lambda t: t[:1]}, "chroma"),
        ({"v": lambda t: t.mT.contiguous().mT}, "chroma"),
        ({"v": lambda t: t.to(torch.uint16)}, "uint16"),
        ({"y": lambda t: t.int()}, "int32"),
        ({"out": lambda t: t[:2]}, "floats densely"),
        ({"out": lambda t: t.int()}, "floats densely"),
        ({"out": lambda t: t.mT.contiguous().mT}, "floats densely"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused(changes: dict[str, Any], error: str) -> None:
    convert = ToModel(VIDEOS["yuv420p"].to_model_tables(), "cpu")
    with pytest.raises((TypeError, ValueError), match=error):
        convert(**spoiled(**changes))


def test_a_reduction_that_no_tile_holds_is_refused() -> None:
    tables = Video(source=(16, 4000), out=(16, 16), padded=(16, 16)).to_model_tables()
    with pytest.raises(ValueError, match="reduces too much"):
        ToModel(tables, "cpu")
