"""Opening a run's stages on one device: networks, pixel engines, streams, rings, graphs."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.pixel_engines import pixel_engine, pixel_spec
from vr_trt.engines.profiles import Profile
from vr_trt.engines.spec import Sizes
from vr_trt.errors import ModelError
from vr_trt.runtime.cuda import Device
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


class LoopBackend(Protocol):
    """What a backend brings to the loop: TensorRT and TensorRT-RTX here, triton in triton_loop.py."""

    @property
    def device(self) -> Device:
        """The GPU."""

    @property
    def stream(self) -> int:
        """Of the networks; it stays theirs."""

    def session(self, stage: str) -> DeviceSession:
        """A network's stage, opened now if it is not; MemoryBudgetError where there is no room."""

    def pixels(self, way: PixelWay, lanes: Lanes) -> PixelSessions:
        """The pixels' stages, each for one stream; ModelError where it has none for them."""


def device_stages(
    model: Model, way: PixelWay, profile: Profile, seed: int, on_card: CardWay = ACROSS_THE_HOST
) -> DeviceStages:
    """Everything opened, taken and captured; `on_card`: codecs that share their frames with it.

    ModelError where the pixels have no engine, MemoryBudgetError where there is no room.
    """
    backend = _backend(model)
    with ExitStack() as undo:
        lanes = Lanes(backend.device, backend.stream)
        undo.callback(lanes.close)
        pixels = backend.pixels(way, lanes)
        networks = DeviceNetworks(
            encoder=_coder(lanes, model, backend, "encode"),
            generator=backend.session("generator"),
            decoder=_coder(lanes, model, backend, "decode"),
        )
        sizes = replace(_sizes(way, profile, model, backend), on_card=on_card)
        stages = DeviceStages(lanes, networks, pixels, sizes, seed, shared_frames(lanes, sizes))
        undo.pop_all()
    return stages


def _backend(model: Model) -> LoopBackend:
    """ModelError where there is none that the loop can drive."""
    if model.backend == "triton":
        from vr_trt.runtime.triton_loop import TritonLoop  # needs torch

        return TritonLoop(model)
    gpu, present = model.gpu, present_gpu()
    if gpu is None or present is None:
        raise ModelError(f"{model.backend or 'more than one backend'} has no loop on a device here")
    return TensorRtLoop(model, gpu, present.sm)


class TensorRtLoop:
    """The engines of TensorRT or TensorRT-RTX, and of the pixels' graphs, which are built now."""

    def __init__(self, model: Model, gpu: Gpu, sm: int) -> None:
        self.device, self.stream = gpu.device, gpu.stream
        self._model, self._gpu, self._sm = model, gpu, sm

    def session(self, stage: str) -> DeviceSession:
        session = self._model.session(stage)
        assert isinstance(session, TensorRtSession), "a model with a GPU has its stages there"
        return session

    def pixels(self, way: PixelWay, lanes: Lanes) -> PixelSessions:
        gpu = self._gpu
        lanes.at_close(gpu.only_own_stream)
        to_model, to_video = to_model_inputs(way.source, way.canvas), to_video_inputs(way.target)
        x = (1, 3, 1, way.canvas.padded_h, way.canvas.padded_w)
        planes = way.source.pixel.plane_shapes(way.source.width, way.source.height)
        frame = {name: (1, *shape) for name, shape in zip("yuv", planes, strict=True)}
        pictures = {"x": x, "reference": x}  # without correction, an input that nothing reads

        graph_in = pixel_graph("to_model", way.source.pixel, wide=32)
        graph_out = pixel_graph(
            f"to_video_{graph_name(way.correction, way.detail)}", way.target.pixel, wide=32
        )
        plan_in = self._pixel_plan(graph_in, frame, to_model)
        plan_out = self._pixel_plan(graph_out, pictures, to_video)
        return PixelSessions(
            pre=TensorRtSession(plan_in, gpu),
            reference=None if way.correction == "none" else TensorRtSession(plan_in, gpu),
            post=TensorRtSession(plan_out, gpu),
            to_model_inputs=to_model,
            to_video_inputs=to_video,
        )

    def _pixel_plan(self, graph: Path, tensors: Mapping[str, Sizes], inputs: Inputs) -> Path:
        shapes = {**tensors, **{name: value.shape for name, value in inputs.items()}}
        return pixel_engine(graph, pixel_spec(graph, shapes, self._model.backend, self._sm)).plan


def shared_frames(lanes: Lanes, sizes: LoopSizes) -> OnCard:
    """The codecs' side of a loop, as far as they share frames with it."""
    way, decoded, encoder = sizes.on_card, None, None
    if way.decoded:
        decoded = DecodedPictures(lanes, sizes.source, (way.rotation, way.mirrored))
    if way.holds is not None:
        encoder = EncoderFrames(lanes, sizes.encoder_layout, sizes.encoder_slots)
    return OnCard(decoded=decoded, encoder=encoder)


def _coder(
    lanes: Lanes, model: Model, backend: LoopBackend, verb: str
) -> tuple[DeviceVaePart, ...]:
    """Whole, or its halves in their order."""
    ends = {"encode": ("x", "latent"), "decode": ("latent", "x")}[verb]
    parts = [(verb, *ends)]
    if is_cut(model, verb):
        halves = ("fine", "coarse") if verb == "encode" else ("coarse", "fine")
        first, second = (f"{verb}_{half}" for half in halves)
        parts = [(first, ends[0], "features"), (second, "features", ends[1])]
    names = [PartNames(stage=stage, source=came, result=goes) for stage, came, goes in parts]
    return tuple(_part(lanes, backend, part) for part in names)


def _part(lanes: Lanes, backend: LoopBackend, names: PartNames) -> DeviceVaePart:
    start, step = (backend.session(f"{names.stage}_{call}") for call in ("start", "step"))
    return DeviceVaePart(lanes, names, start, step)


def _sizes(way: PixelWay, profile: Profile, model: Model, backend: LoopBackend) -> LoopSizes:
    first = "encode_fine_step" if is_cut(model, "encode") else "encode_step"
    last = "decode_fine_step" if is_cut(model, "decode") else "decode_step"
    generator = backend.session("generator")
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
        encode_kind=backend.session(first).kinds["x"],
        decode_kind=backend.session(last).kinds["x"],
        noise_kind=generator.kinds["noise"],
        kernels=model.backend == "triton",
    )
