"""Restoring files and frames: the public face of the runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import find_profile
from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.cut_list import cuts_from
from vr_trt.runtime.film import Film
from vr_trt.runtime.film_source import FilmSource, Range
from vr_trt.runtime.frames import Frame, PixelFormat, VideoInfo
from vr_trt.runtime.memory import Law, law_of
from vr_trt.runtime.model import Model, check_shape, find_model
from vr_trt.runtime.noise import check_seed
from vr_trt.runtime.onnxruntime_session import OrtOptions
from vr_trt.runtime.pipeline import Pipeline, Progress, Timing
from vr_trt.runtime.pixel_stages import Correction, Picture, PixelStages
from vr_trt.runtime.plan import Plan, check_memory, make_plan
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.writer import OutputSpec, Writer

Backend = Literal["auto", "onnxruntime"]
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
    timing: Timing
    warnings: tuple[str, ...]  # guesses about the input, damage that was passed over

    @property
    def frames(self) -> int:
        """Frames written, as many as the input has."""
        return self.timing.frames

    @property
    def fps(self) -> float:
        """Frames a second over the whole run."""
        return self.timing.frames / self.timing.seconds


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
        backend: Backend = "auto",
        threads: int = 0,
    ) -> None:
        """`threads` for the networks, 0 for every core. UsageError, ModelError for bad choices."""
        _choose("colour correction", color, Correction)
        _choose("backend", backend, Backend)
        if threads < 0:
            raise UsageError(f"{threads} threads: give 1 or more, or 0 for every core")
        self.profile = find_profile(profile)
        self._seed = check_seed(seed)
        self._color = color
        self._folder = find_model(model)
        self._options = OrtOptions(threads=threads)
        self._model = Model(self._folder, self._options)
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
        self._model.close()
        self._live = None

    def plan(self, input: str | Path, output: str | Path | None = None) -> Plan:
        """What `restore` would do."""
        info = probe(Path(input))
        return make_plan(info, self.profile, self._law(), Path(output or default_output(info)))

    def restore(
        self,
        input: str | Path,
        output: str | Path | None = None,
        *,
        crf: float | None = None,
        preset: str | None = None,
        overwrite: bool = False,
        cuts: str = "auto",
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Report:
        """Restore the file `input`, a video or an image, into `output` (beside it by default).

        `cuts`: where shots begin: auto, none, or the name of a list. The output appears whole or not at all. Raises a VrTrtError that says what to do.
        """
        info = probe(Path(input))
        target = Path(output) if output is not None else default_output(info)
        plan = make_plan(info, self.profile, self._law(), target)
        latents = 1 if plan.frames == 1 else self.profile.window_latents
        check_shape(self._model.manifest, plan.canvas, latents)
        check_memory(plan, self._law())
        given = {"crf": crf, "preset": preset}
        quality: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        spec = OutputSpec(
            path=target,
            width=plan.canvas.out_w,
            height=plan.canvas.out_h,
            pixel=plan.pixel,
            overwrite=overwrite,
            **quality,
        )
        with Reader(Path(input), info) as reader:
            source = FilmSource(reader, info, Range(), cuts_from(cuts))
            timing = self._run(plan, source, spec, on_progress)
            warnings = (*info.guesses, *reader.warnings)
        return Report(
            input=Path(input),
            output=target,
            model=self._model.manifest.model,
            profile=self.profile.name,
            width=spec.width,
            height=spec.height,
            timing=timing,
            warnings=warnings,
        )

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

    def _run(
        self,
        plan: Plan,
        film_source: FilmSource,
        spec: OutputSpec,
        on_progress: Callable[[Progress], None],
    ) -> Timing:
        info = plan.source
        source = Picture(width=info.width, height=info.height, pixel=info.pixel)
        target = Picture(width=spec.width, height=spec.height, pixel=spec.pixel)
        pixels = PixelStages(source, target, plan.canvas, self._color, self._options)
        model = self._usable_model()
        film = Film(lambda entry: Shot(model, pixels, self.profile, self._seed, entry))

        def cancel() -> None:
            self._model.cancel()
            pixels.cancel()

        pipeline = Pipeline(film_source, film, Writer(spec, info), cancel=cancel, total=plan.frames)
        return pipeline.run(on_progress)

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
        source = Picture(width=width, height=height, pixel=RGB)
        target = Picture(width=sizes.out_w, height=sizes.out_h, pixel=RGB)
        pixels = PixelStages(source, target, sizes, self._color, self._options)
        shot = Shot(self._usable_model(), pixels, self.profile, self._seed)
        self._live = shot, (width, height)
        return shot

    def _usable_model(self) -> Model:
        """The model; a new one after a run that was stopped."""
        if self._model.cancelled:
            self._model = Model(self._folder, self._options)
        return self._model

    def _law(self) -> Law | None:
        return law_of(self._model.manifest)


def default_output(info: VideoInfo) -> Path:
    """Beside the input: name.restored.mp4, or .png for an image."""
    return info.path.with_name(f"{info.path.stem}.restored{'.png' if info.is_image else '.mp4'}")


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
