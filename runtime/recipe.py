"""How films are restored: with which networks, at which size, seed and colour correction."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt import __version__
from vr_trt.errors import ModelError, UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import video_pixel
from vr_trt.runtime.device_memory import on_one_gpu
from vr_trt.runtime.entry import Entry
from vr_trt.runtime.film_run import Work
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.gpu_codecs import choose_encoder
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.input_identity import input_digest
from vr_trt.runtime.model import Model
from vr_trt.runtime.noise import check_seed
from vr_trt.runtime.onnxruntime_session import OrtOptions, usable_cores
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages, PixelWay
from vr_trt.runtime.plan import Plan, estimated_frames, make_plan
from vr_trt.runtime.publish import is_image_path
from vr_trt.runtime.serving import Networks, Serving, Wanted
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.vae_stream import latents_per_step
from vr_trt.runtime.video_codecs import Encoding, usual_suffix
from vr_trt.runtime.writer import OutputSpec

if TYPE_CHECKING:
    from vr_trt.runtime.device_stages import DeviceStages


class Recipe:
    """Restores films; its networks are opened when they are needed, and stay open."""

    def __init__(self, wanted: Wanted, seed: int, color: Correction, threads: int) -> None:
        """`threads` for the networks, 0 for every core. UsageError, ModelError for bad choices."""
        self.wanted = wanted
        self.profile = wanted.profile
        self.seed = check_seed(seed)
        self.color: Correction = color
        self.options = OrtOptions(threads=threads)
        self.networks = Networks(wanted, self.options)
        self.notes: list[str] = []  # on how the last work was opened
        self._loop: DeviceStages | None = None

    def use_threads(self, threads: int) -> None:
        """Use another number of threads from now on."""
        if threads != self.options.threads:
            self.networks.close()
            self.options = OrtOptions(threads=threads)
            self.networks = Networks(self.wanted, self.options)

    def plan(self, info: VideoInfo, output: Path) -> Plan:
        """What restoring `info` into `output` would take."""
        sizes = canvas(info.width, info.height, self.profile.short_side)
        picture = estimated_frames(info) == 1
        serving = self.networks.find(sizes, picture=picture)
        return make_plan(info, self.profile, self.networks.law, output, serving)

    def work(self, plan: Plan, spec: OutputSpec) -> Work:
        """What makes the frames of a plan."""
        info = plan.source
        source = Picture(width=info.width, height=info.height, pixel=info.pixel)
        target = Picture(width=spec.width, height=spec.height, pixel=spec.pixel)
        model = self.networks.open(plan.serving)
        self.finish()
        self.notes.clear()
        way = PixelWay(
            source=source,
            target=target,
            canvas=plan.canvas,
            correction=self.color,
            detail=model.manifest.detail,
        )
        pixels = self._pixels(way, model)
        self._loop = loop = self._open_loop(plan, model, way)

        def cancel() -> None:
            self.networks.cancel()
            pixels.cancel()
            if loop is not None:
                loop.cancel()

        def make_shot(entry: Entry) -> Shot:
            on_host = HostStages(model, pixels, self.profile, self.seed)
            stages = on_host if loop is None else loop.begin(on_host)
            return Shot(stages, self.profile, entry)

        return Work(
            make_shot=make_shot,
            step_latents=lambda: latents_per_step(model, self.profile.latents_per_step),
            cancel=cancel,
            profile=self.profile,
            decoded=None if loop is None else loop.on_card.decoded,
        )

    def finish(self) -> None:
        """Give back what the last work took, except the networks."""
        if self._loop is not None:
            loop, self._loop = self._loop, None
            loop.close()

    def _pixels(self, way: PixelWay, model: Model) -> PixelStages:
        """The pixels' stages that the host feeds: kernels beside the triton backend's networks."""
        sessions = None
        if model.backend == "triton":
            from vr_trt.runtime.triton_pixels import open_way

            try:
                sessions = open_way(way)
            except ModelError as error:
                self.notes.append(f"the pixels' stages run on the CPU: {error}")
        return PixelStages(
            way.source,
            way.target,
            way.canvas,
            way.correction,
            self.options,
            sessions,
            way.detail,
        )

    def _open_loop(self, plan: Plan, model: Model, way: PixelWay) -> "DeviceStages | None":
        """The stages on one GPU, where all of them can be; not for a picture, which has its own.

        Not either where `_pixels` said why the pixels' stages cannot.
        """
        if plan.frames == 1 or self.notes or not on_one_gpu(plan.serving.selection):
            return None
        from vr_trt.runtime.device_loop import device_stages

        try:
            return device_stages(model, way, self.profile, self.seed, plan.on_card)
        except ModelError as error:
            what = "the pixels' stages run on the CPU, which the GPU waits for"
            if model.backend == "triton":  # whose kernels were opened for the host as well
                what = "the host feeds the GPU's stages one by one, and waits for each"
            self.notes.append(f"{what}: {error}")
            return None

    def facts(self, serving: Serving, info: VideoInfo, spec: OutputSpec) -> dict[str, Any]:
        """All that decides the result, by the names that a journal uses when it refuses a change."""
        manifest, profile = self.networks.open(serving).manifest, self.profile
        content = "".join(f"{name}{value}" for name, value in sorted(manifest.sha256.items()))
        return {
            "version": __version__,
            "input": input_digest(info.path),
            "model": f"{manifest.model} {hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "profile": profile.name,
            "window": [profile.window, profile.overlap, profile.latents_per_step],
            "seed": self.seed,
            "color": self.color,
            "engines": serving.line,
            "rate": str(info.frame_rate),
            "deinterlace": info.deinterlace or None,
            "threads": self.options.threads or usable_cores(),
            "size": f"{spec.width}x{spec.height}",
            "pixel format": f"{spec.format_name if spec.pixel.layout == 'yuv' else 'rgb'}",
            "codec": spec.codec,
            "encoder": spec.coder.encoder,
            "crf": spec.crf,
            "preset": spec.preset,
            "bitrate": spec.bitrate,
        }


def default_output(info: VideoInfo, encoding: Encoding) -> Path:
    """Beside the input: name.restored.mp4 (or as the input's), .png for an image.

    UsageError for standard input.
    """
    if info.pipe is not None:
        raise UsageError("standard input has no name: say where to write with -o")
    suffix = ".png" if info.is_image else usual_suffix(info.path, encoding.codec)
    return info.path.with_name(f"{info.path.stem}.restored{suffix}")


def output_spec(
    plan: Plan, path: Path, encoding: Encoding, overwrite: bool
) -> tuple[OutputSpec, str]:
    """What to write for a plan, and a line if the encoder is not the one to be expected.

    UsageError where codec, container and quality do not fit.
    """
    sizes = plan.canvas
    if is_image_path(path):
        spec = OutputSpec(
            path=path, width=sizes.out_w, height=sizes.out_h, pixel=plan.pixel, overwrite=overwrite
        )
        return spec, ""
    codec = encoding.codec_for(path, plan.pixel.transfer)
    pixel = video_pixel(plan.pixel, codec, encoding.bits)
    coder, line = choose_encoder(encoding.encoder, codec, pixel)
    spec = OutputSpec(
        path=path,
        width=sizes.out_w,
        height=sizes.out_h,
        pixel=pixel,
        codec=codec.name,
        crf=encoding.crf,
        preset=encoding.preset,
        bitrate=encoding.bitrate,
        overwrite=overwrite,
        nvenc=coder.hardware,
    )
    return spec, line


def with_codecs(plan: Plan, path: Path, decoded: str) -> Plan:
    """The plan, and who would decode and encode; `decoded`: why NVDEC does not, or nothing."""
    spec, line = output_spec(plan, path, Encoding(), overwrite=False)
    plan = with_card(plan, spec)
    way = plan.on_card
    stays = "; its frames stay on the card" if way.decoded else ""
    lines = [f"decoded by NVDEC{stays}" if plan.source.nvdec else decoded or "decoded on the CPU"]
    if not is_image_path(path):
        there = "" if way.holds is None else ", from the card's memory"
        lines.append(line or f"encoded by {spec.coder.encoder}{there}")
    return replace(plan, codecs=(*lines, *way.lines))


def with_card(plan: Plan, spec: OutputSpec) -> Plan:
    """The plan with the codecs that hand frames over in the card's memory, where they can."""
    if not (plan.source.nvdec or spec.nvenc):
        return plan
    from vr_trt.runtime.card_trials import choose_card_way

    return choose_card_way(plan, spec)
