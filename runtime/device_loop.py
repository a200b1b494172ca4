"""Opening a run's stages on one device: networks, pixel engines, streams, rings, graphs."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.pixel_engines import pixel_engine, pixel_spec
from vr_trt.engines.profiles import Profile
from vr_trt.engines.spec import Sizes
from vr_trt.errors import ModelError
from vr_trt.runtime.device_call import DeviceSession
from vr_trt.runtime.device_decoded import DecodedPictures
from vr_trt.runtime.device_encoding import EncoderFrames
from vr_trt.runtime.device_memory import ACROSS_THE_HOST, CardWay, LoopSizes
from vr_trt.runtime.device_pixels import PixelSessions
from vr_trt.runtime.device_stages import DeviceNetworks, DeviceStages, OnCard
from vr_trt.runtime.device_vae import DeviceVaePart, PartNames
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import (
    Inputs,
    PixelWay,
    graph_name,
    pixel_graph,
    to_model_inputs,
    to_video_inputs,
)
from vr_trt.runtime.tensorrt_session import Gpu, TensorRtSession
from vr_trt.runtime.vae_stream import is_cut, latents_per_step


def device_stages(
    model: Model, way: PixelWay, profile: Profile, seed: int, on_card: CardWay = ACROSS_THE_HOST
) -> DeviceStages:
    """Everything opened, taken and captured; `on_card`: codecs that share their frames with it.

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
        networks = DeviceNetworks(
            encoder=_coder(lanes, model, "encode"),
            generator=_session(model, "generator"),
            decoder=_coder(lanes, model, "decode"),
        )
        sizes = replace(_sizes(way, profile, model), on_card=on_card)
        stages = DeviceStages(lanes, networks, pixels, sizes, seed, shared_frames(lanes, sizes))
        undo.pop_all()
    return stages


def shared_frames(lanes: Lanes, sizes: LoopSizes) -> OnCard:
    """The codecs' side of a loop, as far as they share frames with it."""
    way, decoded, encoder = sizes.on_card, None, None
    if way.decoded:
        decoded = DecodedPictures(lanes, sizes.source, (way.rotation, way.mirrored))
    if way.holds is not None:
        encoder = EncoderFrames(lanes, sizes.encoder_layout, sizes.encoder_slots)
    return OnCard(decoded=decoded, encoder=encoder)


def _coder(lanes: Lanes, model: Model, verb: str) -> tuple[DeviceVaePart, ...]:
    """Whole, or its halves in their order."""
    ends = {"encode": ("x", "latent"), "decode": ("latent", "x")}[verb]
    parts = [(verb, *ends)]
    if is_cut(model, verb):
        halves = ("fine", "coarse") if verb == "encode" else ("coarse", "fine")
        first, second = (f"{verb}_{half}" for half in halves)
        parts = [(first, ends[0], "features"), (second, "features", ends[1])]
    names = [PartNames(stage=stage, source=came, result=goes) for stage, came, goes in parts]
    return tuple(_part(lanes, model, part) for part in names)


def _part(lanes: Lanes, model: Model, names: PartNames) -> DeviceVaePart:
    start, step = (_session(model, f"{names.stage}_{call}") for call in ("start", "step"))
    return DeviceVaePart(lanes, names, start, step)


def _session(model: Model, stage: str) -> DeviceSession:
    session = model.session(stage)
    assert isinstance(session, TensorRtSession), "a model with a GPU has its stages there"
    return session


def _sizes(way: PixelWay, profile: Profile, model: Model) -> LoopSizes:
    first = "encode_fine_step" if is_cut(model, "encode") else "encode_step"
    last = "decode_fine_step" if is_cut(model, "decode") else "decode_step"
    generator = _session(model, "generator")
    _, channels, window, height, width = generator.sizes["latent"]
    return LoopSizes(
        source=way.source,
        target=way.target,
        canvas=(way.canvas.padded_w, way.canvas.padded_h),
        window=window,
        overlap=profile.overlap,
        step=latents_per_step(model, profile.latents_per_step),
        encode_cut=is_cut(model, "encode"),
        decode_cut=is_cut(model, "decode"),
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
    graph_out = pixel_graph(
        f"to_video_{graph_name(way.correction, way.detail)}", way.target.pixel, wide=32
    )
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
