"""Restoring files and frames: the public face of the runtime."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from vr_trt import __version__
from vr_trt.engines.profiles import find_profile
from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.colour import video_pixel
from vr_trt.runtime.crew import (
    Muster,
    check_spreadable,
    check_workers_memory,
    find_cards,
    kept_threads,
    mustered,
)
from vr_trt.runtime.deinterlace import deinterlaced
from vr_trt.runtime.film_run import FilmRun, Work
from vr_trt.runtime.frames import Frame, PixelFormat, VideoInfo
from vr_trt.runtime.image_sequence import parse_rate
from vr_trt.runtime.input_identity import input_digest
from vr_trt.runtime.item_work import ItemWorker, Opened
from vr_trt.runtime.noise import check_seed
from vr_trt.runtime.onnxruntime_session import OrtOptions, usable_cores
from vr_trt.runtime.pipeline import Progress, Timing
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages
from vr_trt.runtime.plan import Plan, check_memory, estimated_frames, make_plan
from vr_trt.runtime.publish import is_image_path
from vr_trt.runtime.reader import probe
from vr_trt.runtime.run_options import RunOptions
from vr_trt.runtime.run_report import write_report
from vr_trt.runtime.serving import Networks, Serving, Wanted
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.spread_run import Crew, SpreadRun
from vr_trt.runtime.stage_trace import StageTime
from vr_trt.runtime.vae_stream import latents_per_step
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.workers import Pool
from vr_trt.runtime.writer import OutputSpec

Pictures = NDArray[np.uint8]  # [F, H, W, 3] RGB

RGB = PixelFormat(
    bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a finished run did."""

    input: Path
    output: Path
    model: str
    profile: str
    width: int
    height: int
    frames: int  # of the output
    timing: Timing  # of this run; one that was resumed made only some of the frames
    stages: dict[str, StageTime]  # calls and seconds of each stage, by its name
    settings: dict[str, Any]  # what decided the result, as the journal holds it
    warnings: tuple[str, ...]  # guesses about the input, damage that was passed over
    engines: str  # what it ran on, on which canvas, and why that one

    @property
    def fps(self) -> float:
        """Frames a second over the whole run."""
        return self.timing.frames / self.timing.seconds if self.timing.seconds else 0.0


class Restorer:
    """Restores files with `restore`, or pictures as they come with `step` and `flush`.

    Usable as a context manager; `close` gives the memory back.
    """

    def __init__(
        self,
        *,
        model: str = "nano",
        profile: str = "720p",
        seed: int = 0,
        color: Correction = "wavelet",
        backend: str = "auto",
        precision: str | None = None,
        threads: int = 0,
    ) -> None:
        """`threads` for the networks, 0 for every core. UsageError, ModelError for bad choices."""
        _choose("colour correction", color, Correction)
        if threads < 0:
            raise UsageError(f"{threads} threads: give 1 or more, or 0 for every core")
        self.profile = find_profile(profile)
        self._seed = check_seed(seed)
        self._color = color
        self._wanted = Wanted(
            model=model, profile=self.profile, backend=backend, precision=precision
        )
        self._threads = threads
        self._options = OrtOptions(threads=threads)
        self._networks = Networks(self._wanted, self._options)
        self._live: tuple[Shot, tuple[int, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the networks; the next call opens them again."""
        self._networks.close()
        self._live = None

    def plan(self, input: str | Path, output: str | Path | None = None, rate: str = "") -> Plan:
        """What `restore` would do; `rate` is that of a folder of images."""
        info = probe(Path(input), parse_rate(rate) if rate else None)
        return self._plan(info, Path(output or default_output(info)))

    def restore(
        self,
        input: str | Path,
        output: str | Path | None = None,
        *,
        encoding: Encoding | None = None,
        options: RunOptions | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Report:
        """Restore the file `input`, a video or an image, into `output` (beside it by default).

        The output appears whole or not at all. Raises a VrTrtError that says what to do.
        """
        options = options or RunOptions()
        rate = parse_rate(options.rate) if options.rate else None
        info = deinterlaced(probe(Path(input), rate), options.deinterlace)
        target = Path(output) if output is not None else default_output(info)
        threads = self._threads or (kept_threads(target) if options.resume else 0)
        self._use_threads(threads)
        plan = self._plan(info, target)
        check_memory(plan, self._networks.law)
        spec = output_spec(plan, target, encoding or Encoding(), options.overwrite)
        run: FilmRun
        if options.spread:
            check_spreadable(info, target)
            with mustered(options, threads) as muster:
                self._use_threads(muster.threads)
                crew = self._crew(plan, spec, muster)
                facts = self._facts(plan.serving, info, spec)
                facts["engines"] = " and ".join(sorted(crew.engines))
                run = SpreadRun(info, spec, options, facts, plan.frames)
                done = run.spread(crew, on_progress)
        else:
            facts = self._facts(plan.serving, info, spec)
            run = FilmRun(info, spec, options, facts, plan.frames)
            done = run.run(lambda: self._work(plan, spec), on_progress)
        report = Report(
            input=Path(input),
            output=target,
            model=self._networks.name,
            profile=self.profile.name,
            width=spec.width,
            height=spec.height,
            frames=done.frames,
            timing=done.timing,
            stages=done.stages,
            settings=run.facts,
            warnings=(*plan.serving.remarks, *done.warnings),
            engines=plan.serving.line,
        )
        if options.report is not None:
            write_report(options.report, report)
        return report

    def step(self, frames: Pictures | Sequence[Pictures]) -> list[Pictures]:
        """Take RGB pictures [F, H, W, 3] uint8; give those restored by now, [H', W', 3] each.

        Results come some frames later: a generator window must be full first.
        """
        done: list[Pictures] = []
        for picture in frames:
            shot = self._live_shot(_checked(picture))
            planes = [np.ascontiguousarray(picture[..., i]) for i in range(3)]
            done += map(_picture, shot.push(Frame((planes[0], planes[1], planes[2]), 0, 0)))
        return done

    def flush(self) -> list[Pictures]:
        """End the shot: give the pictures that are left. The next `step` starts a new one."""
        if self._live is None:
            return []
        shot, self._live = self._live[0], None
        return [_picture(frame) for frame in shot.finish()]

    def _use_threads(self, threads: int) -> None:
        """0 for every core."""
        if threads != self._options.threads:
            self._networks.close()
            self._options = OrtOptions(threads=threads)
            self._networks = Networks(self._wanted, self._options)

    def _crew(self, plan: Plan, spec: OutputSpec, muster: Muster) -> Crew:
        """Workers of one run. MemoryBudgetError, UsageError where they cannot be had."""
        servings, cards = [plan.serving], find_cards(muster.gpus)
        if cards:
            info = plan.source
            sizes = canvas(info.width, info.height, self.profile.short_side)
            servings = [self._networks.find(sizes, gpu=card) for card in cards]
        for serving in servings:
            self._networks.check_card(serving)
        if muster.cluster is None:
            law = self._networks.law
            check_workers_memory(plan, muster.size, law.base if law else 0.0)

        def open_pool(folder: Path) -> Pool:
            opener = OpenItemWorker(
                wanted=self._wanted,
                seed=self._seed,
                color=self._color,
                threads=muster.threads,
                info=replace(plan.source, path=plan.source.path.resolve()),
                spec=spec,
                folder=folder,
                digest=input_digest(plan.source.path),
            )
            return muster.pool(opener, on_gpu=plan.serving.selection.on_gpu)

        engines = frozenset(serving.line for serving in servings)
        alike = len(engines) == 1 and len({card.name for card in cards}) <= 1
        return Crew(open_pool=open_pool, profile=self.profile, engines=engines, alike=alike)

    def _work(self, plan: Plan, spec: OutputSpec) -> Work:
        info = plan.source
        source = Picture(width=info.width, height=info.height, pixel=info.pixel)
        target = Picture(width=spec.width, height=spec.height, pixel=spec.pixel)
        pixels = PixelStages(source, target, plan.canvas, self._color, self._options)
        model = self._networks.open(plan.serving)

        def cancel() -> None:
            self._networks.cancel()
            pixels.cancel()

        return Work(
            make_shot=lambda entry: Shot(model, pixels, self.profile, self._seed, entry),
            step_latents=lambda: latents_per_step(model, self.profile.latents_per_step),
            cancel=cancel,
            profile=self.profile,
        )

    def _facts(self, serving: Serving, info: VideoInfo, spec: OutputSpec) -> dict[str, Any]:
        """What decides the result, by the names under which a journal refuses a change of it."""
        manifest, profile = self._networks.open(serving).manifest, self.profile
        content = "".join(f"{name}{value}" for name, value in sorted(manifest.sha256.items()))
        return {
            "version": __version__,
            "input": input_digest(info.path),
            "model": f"{manifest.model} {hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "profile": profile.name,
            "window": [profile.window, profile.overlap, profile.latents_per_step],
            "seed": self._seed,
            "color": self._color,
            "engines": serving.line,
            "rate": str(info.frame_rate),
            "deinterlace": info.deinterlace or None,
            "threads": self._options.threads or usable_cores(),
            "size": f"{spec.width}x{spec.height}",
            "pixel format": f"{spec.format_name if spec.pixel.layout == 'yuv' else 'rgb'}",
            "codec": spec.codec,
            "crf": spec.crf,
            "preset": spec.preset,
            "bitrate": spec.bitrate,
        }

    def _live_shot(self, picture: Pictures) -> Shot:
        height, width, _ = picture.shape
        if self._live is not None:
            shot, size = self._live
            if size != (width, height):
                raise UsageError(
                    f"a picture of {width}x{height} after {size[0]}x{size[1]}: flush() first"
                )
            return shot
        sizes = canvas(width, height, self.profile.short_side)
        serving = self._networks.find(sizes)
        sizes = serving.canvas
        source = Picture(width=width, height=height, pixel=RGB)
        target = Picture(width=sizes.out_w, height=sizes.out_h, pixel=RGB)
        pixels = PixelStages(source, target, sizes, self._color, self._options)
        shot = Shot(self._networks.open(serving), pixels, self.profile, self._seed)
        self._live = shot, (width, height)
        return shot

    def _plan(self, info: VideoInfo, output: Path) -> Plan:
        sizes = canvas(info.width, info.height, self.profile.short_side)
        picture = estimated_frames(info) == 1
        serving = self._networks.find(sizes, picture=picture)
        return make_plan(info, self.profile, self._networks.law, output, serving)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenItemWorker:
    """Opens a worker of one run, in the process that calls it."""

    wanted: Wanted
    seed: int
    color: Correction
    threads: int
    info: VideoInfo
    spec: OutputSpec
    folder: Path  # for segments
    digest: str  # of the input

    def __call__(self) -> ItemWorker:
        return self._opened(ship=False)

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> ItemWorker:
        """On another machine: segments are sent, and so is the input where it is not there."""
        info = self.info
        if input_digest(info.path) != self.digest:
            copy = folder / info.path.name
            fetch(info.path, copy)
            info = replace(info, path=copy)
        return replace(self, info=info, folder=folder)._opened(ship=True)

    def _opened(self, ship: bool) -> ItemWorker:
        restorer = Restorer(
            model=self.wanted.model,
            profile=self.wanted.profile.name,
            seed=self.seed,
            color=self.color,
            backend=self.wanted.backend,
            precision=self.wanted.precision,
            threads=self.threads,
        )
        plan = restorer._plan(self.info, self.spec.path)
        opened = Opened(work=restorer._work(plan, self.spec), engines=plan.serving.line)
        return ItemWorker(opened, self.info, self.spec, self.folder, ship)


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


def _choose(what: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UsageError(f"unknown {what} {value!r}: choose one of {', '.join(get_args(choices))}")


def _checked(picture: Pictures) -> Pictures:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UsageError(
            f"a picture is [H, W, 3] RGB in uint8, not {list(picture.shape)} in {picture.dtype}"
        )
    return picture


def _picture(frame: Frame) -> Pictures:
    return np.stack(frame.planes, axis=-1).astype(np.uint8, copy=False)
