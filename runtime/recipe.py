"""How films are restored, whatever the film: the networks, the size, the seed, the colours."""

import hashlib
from pathlib import Path
from typing import Any

from vr_trt import __version__
from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import video_pixel
from vr_trt.runtime.film_run import Work
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.input_identity import input_digest
from vr_trt.runtime.noise import check_seed
from vr_trt.runtime.onnxruntime_session import OrtOptions, usable_cores
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages
from vr_trt.runtime.plan import Plan, estimated_frames, make_plan
from vr_trt.runtime.publish import is_image_path
from vr_trt.runtime.serving import Networks, Serving, Wanted
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.vae_stream import latents_per_step
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.writer import OutputSpec


class Recipe:
    """What restores films; the networks are opened when they are needed, and stay open."""

    def __init__(self, wanted: Wanted, seed: int, color: Correction, threads: int) -> None:
        """`threads` for the networks, 0 for every core. UsageError, ModelError for bad choices."""
        self.wanted = wanted
        self.profile = wanted.profile
        self.seed = check_seed(seed)
        self.color: Correction = color
        self.options = OrtOptions(threads=threads)
        self.networks = Networks(wanted, self.options)

    def use_threads(self, threads: int) -> None:
        """Another number from now on."""
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
        pixels = PixelStages(source, target, plan.canvas, self.color, self.options)
        model = self.networks.open(plan.serving)

        def cancel() -> None:
            self.networks.cancel()
            pixels.cancel()

        return Work(
            make_shot=lambda entry: Shot(model, pixels, self.profile, self.seed, entry),
            step_latents=lambda: latents_per_step(model, self.profile.latents_per_step),
            cancel=cancel,
            profile=self.profile,
        )

    def facts(self, serving: Serving, info: VideoInfo, spec: OutputSpec) -> dict[str, Any]:
        """What decides the result, by the names under which a journal refuses a change of it."""
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
            "crf": spec.crf,
            "preset": spec.preset,
            "bitrate": spec.bitrate,
        }


def default_output(info: VideoInfo) -> Path:
    """Beside the input: name.restored.mp4, or .png for an image. UsageError for standard input."""
    if info.pipe is not None:
        raise UsageError("standard input has no name: say where to write with -o")
    return info.path.with_name(f"{info.path.stem}.restored{'.png' if info.is_image else '.mp4'}")


def output_spec(plan: Plan, path: Path, encoding: Encoding, overwrite: bool) -> OutputSpec:
    """What to write for a plan. UsageError where codec, container and quality do not fit."""
    sizes = plan.canvas
    if is_image_path(path):
        return OutputSpec(
            path=path, width=sizes.out_w, height=sizes.out_h, pixel=plan.pixel, overwrite=overwrite
        )
    codec = encoding.codec_for(path)
    return OutputSpec(
        path=path,
        width=sizes.out_w,
        height=sizes.out_h,
        pixel=video_pixel(plan.pixel, codec, encoding.bits),
        codec=codec.name,
        crf=encoding.crf,
        preset=encoding.preset,
        bitrate=encoding.bitrate,
        overwrite=overwrite,
    )
