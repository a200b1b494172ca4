"""The pixel sessions of the triton backend against the graphs that ship, run by ONNX Runtime.

Run by test_triton_pixels, see kernel_runs.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernel_runs import DEVICE

onnxruntime = pytest.importorskip("onnxruntime")

from tests.export.test_pixel_graphs import FULL, NAMES, SUBSAMPLED, inputs

from vr_trt.engines.triton_pixels import CHROMA, TO_MODEL, TO_VIDEO
from vr_trt.errors import ModelError
from vr_trt.export.pixel_graphs import CORRECTIONS, SHIPPED, PixelShape
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.pixel_stages import Picture, PixelStages, PixelWay
from vr_trt.runtime.session import call
from vr_trt.runtime.triton_pixels import (
    TritonPixels,
    open_to_model,
    open_to_video,
    open_way,
    pixel_work,
)

Arrays = dict[str, NDArray[Any]]
# Every graph once at a size whose chroma ends in the middle of a pair, where it has one.
ODD = PixelShape(frames=1, source=(9, 7), output=(13, 11), padded=(16, 16), chroma=(2, 2))
SHAPES = {"sub": ODD, "full": FULL["1x1"]}
OTHERS = [
    ("to_model_sub_16", SUBSAMPLED["422"]),
    ("to_video_wavelet_sub_8", SUBSAMPLED["420 odd"]),
    ("to_video_adain_sub_8", SUBSAMPLED["to 1 row"]),
    ("to_video_lab_full_16", PixelShape(
        frames=2, source=(9, 9), output=(21, 10), padded=(32, 16), chroma=(1, 1))),
    *((f"to_video_{name}_full_8", PixelShape(
        frames=2, source=(9, 9), output=(21, 10), padded=(32, 16), chroma=(1, 1)))
        for name in CORRECTIONS if name.startswith("wavelet")),
]  # fmt: skip
CASES = [*((name, SHAPES["sub" if "_sub_" in name else "full"]) for name in NAMES), *OTHERS]
MOST_DIFFERING = 0.005  # of codes, where the last bit decides a rounding


def opened(name: str, feeds: Arrays) -> tuple[TritonPixels, list[str]]:
    """The session for a graph's inputs, and the names of those that change from call to call."""
    to_model = name.startswith("to_model")
    constant = (*(TO_MODEL if to_model else TO_VIDEO), *CHROMA)
    fixed = {key: value for key, value in feeds.items() if key in constant}
    bits = int(name.rpartition("_")[2])
    if to_model:
        session = open_to_model(fixed, pixel_work(len(feeds["y"]), bits, device=DEVICE))
    else:
        work = pixel_work(feeds["x"].shape[2], bits, device=DEVICE)
        padded = feeds["x"].shape[3], feeds["x"].shape[4]
        correction, detail = CORRECTIONS[name.split("_")[2]]
        session = open_to_video(fixed, work, correction, padded, detail)
    return session, [key for key in feeds if key not in fixed]


def close(ours: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert ours.shape == wanted.shape and ours.dtype == wanted.dtype
    if ours.ndim == 5:  # a picture, not a plane
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=5e-6)
        return
    off = np.abs(ours.astype(int) - wanted.astype(int))
    assert off.max() <= 1 and (off > 0).sum() <= max(1, MOST_DIFFERING * off.size)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=[f"{n}-{s.output}" for n, s in CASES])
def test_a_session_gives_what_its_graph_gives(name: str, shape: PixelShape) -> None:
    feeds = inputs(name, shape)
    graph = onnxruntime.InferenceSession(SHIPPED / f"{name}.onnx")
    wanted = dict(zip([o.name for o in graph.get_outputs()], graph.run(None, feeds), strict=True))
    session, _ = opened(name, feeds)
    # Nothing is corrected without a correction, so there is no reference to read.
    unread = {"reference"} if "_none_" in name else set()
    assert set(session.inputs) == {i.name for i in graph.get_inputs()} - unread
    assert {k: tuple(v.shape) for k, v in feeds.items() if k not in unread} == dict(session.inputs)
    assert list(session.outputs) == list(wanted)
    ours = call(session, {key: feeds[key] for key in feeds if key not in unread})
    for output, value in wanted.items():
        close(ours[output].numpy(), value)


def test_only_what_changes_must_be_given_again() -> None:
    feeds = inputs("to_model_full_8", FULL["1x1"])
    session, changing = opened("to_model_full_8", feeds)
    assert changing == ["y", "u", "v"]
    once = call(session, feeds)["x"].numpy()
    again = call(session, {key: feeds[key] for key in changing})["x"].numpy()
    assert np.array_equal(once, again)


def test_another_video_is_refused() -> None:
    feeds = inputs("to_model_full_8", FULL["1x1"])
    session, _ = opened("to_model_full_8", feeds)
    with pytest.raises(ModelError, match="to_model was opened for another to_rgb"):
        session.bind("to_rgb", feeds["to_rgb"] + 1)
    with pytest.raises(ModelError, match="no input 'dither'"):
        session.bind("dither", feeds["rows"])
    with pytest.raises(ModelError, match="without u, v, y"):
        session.enqueue()


def test_tables_of_the_other_way_are_refused() -> None:
    feeds = inputs("to_model_sub_8", SUBSAMPLED["420"])
    given = {key: feeds[key] for key in (*TO_MODEL, "chroma_rows")}
    for fixed in (given, {"to_rgb": feeds["to_rgb"]}):
        with pytest.raises(ModelError, match="takes to_rgb, rows, cols and, for subsampled"):
            open_to_model(fixed, pixel_work(3, 8, device=DEVICE))


@pytest.mark.parametrize("bits", [8, 10])
def test_frames_of_a_film_are_those_of_the_cpu_s_graphs(bits: int) -> None:
    pixel = PixelFormat(
        bits=bits, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
    )
    sizes = canvas(22, 14, 16)
    target = output_pixel(pixel, sizes.out_w, sizes.out_h, image=False)
    way = PixelWay(
        source=Picture(width=22, height=14, pixel=pixel),
        target=Picture(width=sizes.out_w, height=sizes.out_h, pixel=target),
        canvas=sizes,
        correction="wavelet",
    )
    random = np.random.default_rng(0)
    y, u, v = (
        random.integers(0, 1 << bits, shape).astype(pixel.dtype)
        for shape in pixel.plane_shapes(22, 14)
    )
    frame = Frame((y, u, v), 0, 1)
    results = []
    for sessions in (None, open_way(way, DEVICE)):
        stages = PixelStages(way.source, way.target, way.canvas, way.correction, sessions=sessions)
        x = stages.to_model([frame])
        (out,) = stages.to_video(0.5 * x, [frame])
        results.append((x, *out.planes))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0, atol=5e-6)
    for plane, wanted in zip(results[1][1:], results[0][1:], strict=True):
        close(plane, wanted)
