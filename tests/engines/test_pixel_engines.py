"""Engines of the pixel graphs: really built by TensorRT-RTX, found again, told apart by size."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vr_trt.engines import pixel_engines
from vr_trt.engines.build_tensorrt_rtx import _configure
from vr_trt.engines.pixel_engines import pixel_engine, pixel_spec
from vr_trt.errors import ModelError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.frames import PixelFormat
from vr_trt.runtime.pixel_stages import Picture, pixel_graph, to_model_inputs, to_video_inputs

SIZE = 66, 50
BACKEND = "tensorrt-rtx"


def shapes_in(bits: int) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """to_model's graph for a film of SIZE, and the sizes of its inputs."""
    picture = Picture(width=SIZE[0], height=SIZE[1], pixel=yuv(bits))
    planes = picture.pixel.plane_shapes(*SIZE)
    shapes: dict[str, tuple[int, ...]] = {
        name: (1, *shape) for name, shape in zip("yuv", planes, strict=True)
    }
    inputs = to_model_inputs(picture, canvas(*SIZE, 72))
    return pixel_graph("to_model", picture.pixel, wide=32), shapes | {
        name: value.shape for name, value in inputs.items()
    }


def shapes_out(bits: int) -> tuple[Path, dict[str, tuple[int, ...]]]:
    sizes = canvas(*SIZE, 72)
    pixel = output_pixel(yuv(bits), sizes.out_w, sizes.out_h, image=False)
    inputs = to_video_inputs(Picture(width=sizes.out_w, height=sizes.out_h, pixel=pixel))
    x = (1, 3, 1, sizes.padded_h, sizes.padded_w)
    shapes: dict[str, tuple[int, ...]] = {"x": x, "reference": x}
    return pixel_graph("to_video_wavelet", pixel, wide=32), shapes | {
        name: value.shape for name, value in inputs.items()
    }


def yuv(bits: int) -> PixelFormat:
    return PixelFormat(
        bits=bits, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("made", [shapes_in, shapes_out])
@pytest.mark.parametrize("bits", [8, 10])
def test_it_is_built_once(monkeypatch: pytest.MonkeyPatch, made: Any, bits: int) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph, shapes = made(bits)
    spec = pixel_spec(graph, shapes, BACKEND, 89)
    engine = pixel_engine(graph, spec)
    assert engine.spec == spec and engine.plan.stat().st_size > 10_000
    assert engine.about.seconds["all"] > 0 and engine.spec.flags["tf32"] == "no"
    monkeypatch.setattr(pixel_engines, "build_in_process", None)
    assert pixel_engine(graph, spec).plan == engine.plan


def test_another_size_and_another_chip_are_others() -> None:
    pytest.importorskip("tensorrt_rtx")
    graph, shapes = shapes_in(8)
    folders = {
        pixel_spec(graph, {**shapes, "y": (1, 50, width)}, BACKEND, sm).folder_name
        for width in (66, 68)
        for sm in (89, 120)
    }
    assert len(folders) == 4


def test_without_the_library() -> None:
    graph, shapes = shapes_in(8)
    with pytest.raises(ModelError, match="tensorrt 11 is not installed"):
        pixel_spec(graph, shapes, "tensorrt", 90)


def test_ten_bits_are_not_multiplied_in_eleven() -> None:
    """TF32, which TensorRT-RTX uses unless told not to."""
    library = pytest.importorskip("tensorrt_rtx")
    graph, shapes = shapes_in(10)
    spec = pixel_spec(graph, shapes, BACKEND, 89)
    for flags, expected in ((spec.flags, False), ({**spec.flags, "tf32": "yes"}, True)):
        config = library.Builder(library.Logger()).create_builder_config()
        _configure(config, library, SimpleNamespace(targets=(89,), flags=flags))  # type: ignore[arg-type]
        assert config.get_flag(library.BuilderFlag.TF32) is expected
