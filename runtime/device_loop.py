"""Opening a run's stages on one device: networks, pixel engines, streams, rings, graphs."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.pixel_engines import pixel_engine, pixel_spec
from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile
from vr_trt.engines.spec import Sizes
from vr_trt.errors import ModelError
from vr_trt.runtime.canvas import Canvas
from vr_trt.runtime.device_call import DeviceSession
from vr_trt.runtime.device_memory import LoopSizes
from vr_trt.runtime.device_pixels import PixelSessions
from vr_trt.runtime.device_stages import DeviceNetworks, DeviceStages
from vr_trt.runtime.device_vae import DeviceVaePart, PartNames
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import (
    Correction,
    Inputs,
    Picture,
    pixel_graph,
    to_model_inputs,
    to_video_inputs,
)
from vr_trt.runtime.tensorrt_session import Gpu, TensorRtSession
from vr_trt.runtime.vae_stream import is_cut


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelWay:
    """What frames are on either side of the networks."""

    source: Picture
    target: Picture
    canvas: Canvas
    correction: Correction


def device_stages(model: Model, way: PixelWay, profile: Profile, seed: int) -> DeviceStages:
    """Everything opened, taken and captured.

    ModelError where the pixels have no engine, MemoryBudgetError where there is no room.
    """
    gpu, present = model.gpu, present_gpu()
    if gpu is None or present is None:
        raise ModelError(f"{model.backend or 'more than one backend'} has no loop on a device here")
    with ExitStack() as undo:
        lanes = Lanes(gpu.device, gpu.stream)
        undo.callback(lanes.close)
        lanes.at_close(gpu.only_own_stream)
        pixels = _pixel_sessions(way, gpu, model.backend, present.sm)
        names = _part_names(cut=is_cut(model))
        parts = [_part(lanes, model, part) for part in names]
        generator = _session(model, "generator")
        sizes = _sizes(way, profile, model, pixels)
        half = len(parts) // 2
        networks = DeviceNetworks(
            encoder=tuple(parts[:half]), generator=generator, decoder=tuple(parts[half:])
        )
        stages = DeviceStages(lanes, networks, pixels, sizes, seed)
        undo.pop_all()
    return stages


def _part_names(*, cut: bool) -> list[PartNames]:
    """Of the encoder, then of the decoder."""
    if not cut:
        return [
            PartNames(stage="encode", source="x", result="latent"),
            PartNames(stage="decode", source="latent", result="x"),
        ]
    return [
        PartNames(stage="encode_fine", source="x", result="features"),
        PartNames(stage="encode_coarse", source="features", result="latent"),
        PartNames(stage="decode_coarse", source="latent", result="features"),
        PartNames(stage="decode_fine", source="features", result="x"),
    ]


def _part(lanes: Lanes, model: Model, names: PartNames) -> DeviceVaePart:
    start, step = (_session(model, f"{names.stage}_{call}") for call in ("start", "step"))
    return DeviceVaePart(lanes, names, start, step)


def _session(model: Model, stage: str) -> DeviceSession:
    session = model.session(stage)
    assert isinstance(session, TensorRtSession), "a model with a GPU has its stages there"
    return session


def _sizes(way: PixelWay, profile: Profile, model: Model, pixels: PixelSessions) -> LoopSizes:
    cut = is_cut(model)
    first, last = (f"{verb}{'_fine' if cut else ''}_step" for verb in ("encode", "decode"))
    coarse = _session(model, "encode_coarse_step" if cut else "encode_step")
    generator = _session(model, "generator")
    _, channels, _, height, width = generator.sizes["latent"]
    return LoopSizes(
        source=way.source,
        target=way.target,
        canvas=(way.canvas.padded_w, way.canvas.padded_h),
        window=generator.sizes["latent"][2],
        overlap=profile.overlap,
        step=coarse.sizes["features" if cut else "x"][2] // FRAMES_PER_LATENT,
        cut=cut,
        latent=(1, channels, 1, height, width),
        encode_kind=_session(model, first).kinds["x"],
        decode_kind=_session(model, last).kinds["x"],
        noise_kind=generator.kinds["noise"],
    )


def _pixel_sessions(way: PixelWay, gpu: Gpu, backend: str, sm: int) -> PixelSessions:
    to_model, to_video = to_model_inputs(way.source, way.canvas), to_video_inputs(way.target)
    x = (1, 3, 1, way.canvas.padded_h, way.canvas.padded_w)
    planes = way.source.pixel.plane_shapes(way.source.width, way.source.height)
    frame = {name: (1, *shape) for name, shape in zip("yuv", planes, strict=True)}
    pictures = {"x": x, "reference": x}  # without correction, an input that nothing reads

    graph_in = pixel_graph("to_model", way.source.pixel, wide=32)
    graph_out = pixel_graph(f"to_video_{way.correction}", way.target.pixel, wide=32)
    plan_in = _pixel_plan(graph_in, frame, to_model, (backend, sm))
    plan_out = _pixel_plan(graph_out, pictures, to_video, (backend, sm))
    return PixelSessions(
        pre=TensorRtSession(plan_in, gpu),
        reference=None if way.correction == "none" else TensorRtSession(plan_in, gpu),
        post=TensorRtSession(plan_out, gpu),
        to_model_inputs=to_model,
        to_video_inputs=to_video,
    )


def _pixel_plan(
    graph: Path, tensors: Mapping[str, Sizes], inputs: Inputs, where: tuple[str, int]
) -> Path:
    """The plan of a pixel graph; `where`: backend and chip."""
    shapes = {**tensors, **{name: value.shape for name, value in inputs.items()}}
    return pixel_engine(graph, pixel_spec(graph, shapes, *where)).plan
