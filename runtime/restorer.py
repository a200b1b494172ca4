"""Restoring files and frames: the public face of the runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import find_profile
from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.counted import counted
from vr_trt.runtime.deinterlace import deinterlaced
from vr_trt.runtime.film_run import FilmRun
from vr_trt.runtime.frames import Frame, PixelFormat, VideoInfo
from vr_trt.runtime.gpu_codecs import choose_decoder
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.image_sequence import parse_rate
from vr_trt.runtime.item_server import make_crew
from vr_trt.runtime.pipeline import Progress, Timing
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages
from vr_trt.runtime.plan import Plan, check_memory
from vr_trt.runtime.reader import probe
from vr_trt.runtime.recipe import Recipe, default_output, output_spec, with_card, with_codecs
from vr_trt.runtime.run_options import RunOptions
from vr_trt.runtime.run_report import write_report
from vr_trt.runtime.serving import Wanted
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.spread_run import SpreadRun
from vr_trt.runtime.stage_trace import StageTime
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.worker_group import (
    check_spreadable,
    kept_threads,
    open_group,
)
from vr_trt.runtime.writer import OutputSpec

MOST_THREADS = 1024
Pictures = NDArray[np.uint8]  # [F, H, W, 3] RGB

RGB = PixelFormat(
    bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a finished run did, as `restore` returns it."""

    input: Path
    output: Path
    model: str
    profile: str
    width: int
    height: int
    frames: int  # of the output
    timing: Timing  # of this run, which made only some of the frames if it was resumed
    stages: dict[str, StageTime]  # calls and seconds of each stage, by its name
    settings: dict[str, Any]  # what decided the result, as the journal holds it
    warnings: tuple[str, ...]  # guesses about the input, damage that was passed over
    engines: str  # what it ran on, on which canvas, and why

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
        card_memory: float | None = None,
    ) -> None:
        """`threads` for the networks, 0 for every core; `card_memory`: GiB of the GPU that there are
        to be for it, None for all. UsageError, ModelError for bad choices.
        """
        if color not in get_args(Correction):
            choices = ", ".join(get_args(Correction))
            raise UsageError(f"unknown colour correction {color!r}: choose one of {choices}")
        if card_memory is not None and not 0 < card_memory < inf:
            raise UsageError(f"{card_memory:g} GB of the card: give more than 0")
        if not 0 <= threads <= MOST_THREADS:
            raise UsageError(
                f"{threads} threads are not possible: give 1 to {MOST_THREADS}, or 0 for every core"
            )
        self.profile = find_profile(profile)
        wanted = Wanted(
            model=model, profile=self.profile, backend=backend, precision=precision,
            card_memory=card_memory,
        )  # fmt: skip
        self._recipe = Recipe(wanted, seed, color, threads)
        self._threads = threads
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
        """Give up the networks and their memory; the next call opens them again."""
        self._recipe.networks.close()
        self._live = None

    def plan(self, input: str | Path, output: str | Path | None = None, rate: str = "") -> Plan:
        """What `restore` would do. `rate`: frames per second, for a folder of images."""
        info = probe(Path(input), parse_rate(rate) if rate else None)
        nvdec, decoded = choose_decoder("auto", info)
        if info.interlaced:
            info = replace(info, guesses=(*info.guesses, "interlaced: a run needs --deinterlace"))
        target = Path(output or default_output(info, Encoding()))
        return with_codecs(self._recipe.plan(replace(info, nvdec=nvdec), target), target, decoded)

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
        encoding = encoding or Encoding()
        source, target, decoded = self._source(input, output, encoding, options)
        kept = kept_threads(target) if options.resume else 0
        threads = kept or self._threads
        self._recipe.use_threads(threads)
        plan, spec, encoded = self._laid_out(source, target, encoding, options)
        if not options.spread:  # what several workers decode is compared, whole frames of it
            plan = with_card(plan, spec)
        check_memory(plan, self._recipe.networks.law)
        facts = self._recipe.facts(plan.serving, source, spec)
        run: FilmRun
        if options.spread:
            check_spreadable(source, target)
            with open_group(options, threads) as group:
                self._recipe.use_threads(group.threads)
                crew = make_crew(self._recipe, plan, spec, group)
                facts |= {"engines": crew.line, "threads": group.threads}
                run = SpreadRun(source, spec, options, facts, plan.frames)
                done = run.spread(crew, on_progress)
        else:
            run = FilmRun(source, spec, options, facts, plan.frames)
            try:
                done = run.run(lambda: self._recipe.work(plan, spec), on_progress)
            finally:
                self._recipe.finish()
        report = Report(
            input=Path(input),
            output=target,
            model=self._recipe.networks.name,
            profile=self.profile.name,
            width=spec.width,
            height=spec.height,
            frames=done.frames,
            timing=done.timing,
            stages=done.stages,
            settings=run.facts,
            warnings=(
                *plan.serving.remarks,
                *filter(None, (decoded, encoded)),
                *plan.on_card.lines,
                *self._recipe.notes,
                *done.warnings,
                *_threads_note(self._threads, kept),
            ),
            engines=plan.serving.line,
        )
        if options.report is not None:
            write_report(options.report, report)
        return report

    def settings(
        self,
        input: str | Path,
        output: str | Path | None = None,
        *,
        encoding: Encoding | None = None,
        options: RunOptions | None = None,
    ) -> dict[str, Any]:
        """All that decides the result of `restore`: while it is the same, so is the file."""
        options = options or RunOptions()
        encoding = encoding or Encoding()
        source, target, _ = self._source(input, output, encoding, options)
        plan, spec, _ = self._laid_out(source, target, encoding, options)
        facts = self._recipe.facts(plan.serving, source, spec)
        return FilmRun(source, spec, options, facts, plan.frames).facts

    def step(self, frames: Pictures | Sequence[Pictures]) -> list[Pictures]:
        """Take RGB pictures [F, H, W, 3] uint8; return what is restored by now, [H', W', 3] each.

        Results lag behind: a generator window must be full first.
        """
        done: list[Pictures] = []
        for picture in frames:
            shot = self._live_shot(_checked(picture))
            planes = [np.ascontiguousarray(picture[..., i]) for i in range(3)]
            done += map(_picture, shot.push(Frame((planes[0], planes[1], planes[2]), 0, 0)))
        return done

    def flush(self) -> list[Pictures]:
        """End the shot and return the pictures that are left. The next `step` starts a new shot."""
        if self._live is None:
            return []
        shot, self._live = self._live[0], None
        return [_picture(frame) for frame in shot.finish()]

    def _source(
        self, input: str | Path, output: str | Path | None, encoding: Encoding, options: RunOptions
    ) -> tuple[VideoInfo, Path, str]:
        """What the input is, where the output goes, and a line on the decoder, or an empty one."""
        rate = parse_rate(options.rate) if options.rate else None
        info = deinterlaced(probe(Path(input), rate), options.deinterlace)
        nvdec, line = choose_decoder(options.decoder, info)
        target = Path(output) if output is not None else default_output(info, encoding)
        return replace(info, nvdec=nvdec), target, line

    def _laid_out(
        self, source: VideoInfo, target: Path, encoding: Encoding, options: RunOptions
    ) -> tuple[Plan, OutputSpec, str]:
        plan = self._recipe.plan(source, target)
        return plan, *output_spec(plan, target, encoding, options.overwrite)

    def _live_shot(self, picture: Pictures) -> Shot:
        height, width, _ = picture.shape
        if self._live is not None:
            shot, size = self._live
            if size != (width, height):
                raise UsageError(
                    f"a picture of {width}x{height} after {size[0]}x{size[1]}: flush() first"
                )
            return shot
        networks = self._recipe.networks
        sizes = canvas(width, height, self.profile.short_side)
        serving = networks.find(sizes)
        sizes = serving.canvas
        source = Picture(width=width, height=height, pixel=RGB)
        target = Picture(width=sizes.out_w, height=sizes.out_h, pixel=RGB)
        model, recipe = networks.open(serving), self._recipe
        detail = model.manifest.detail
        pixels = PixelStages(source, target, sizes, recipe.color, recipe.options, detail=detail)
        stages = HostStages(model, pixels, self.profile, recipe.seed)
        shot = Shot(stages, self.profile)
        self._live = shot, (width, height)
        return shot


def _threads_note(asked: int, kept: int) -> tuple[str, ...]:
    if not kept or asked in (0, kept):
        return ()
    threads = counted(kept, "thread")
    return (
        f"the stopped run had {threads}, and so has this one: another number rounds differently",
    )


def _checked(picture: Pictures) -> Pictures:
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"a picture is a numpy array [H, W, 3] in uint8, not a {type(picture).__name__}"
        )
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UsageError(
            f"a picture is [H, W, 3] RGB in uint8, not {list(picture.shape)} in {picture.dtype}"
        )
    return picture


def _picture(frame: Frame) -> Pictures:
    return np.stack(frame.planes, axis=-1).astype(np.uint8, copy=False)
