"""Which engines serve a picture of a given shape: exact ones, new ones, or larger ones by padding."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vr_trt.engines.cache import Canvas, Engine
from vr_trt.engines.spec import EngineSpec

BUILD_AT_ONCE = 60.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is to be restored, and on what."""

    model: str
    canvas: Canvas  # padded to the networks' cells, no more
    backend: str
    target: int | None  # compute capability; None: the CPU
    precision: str | None = None  # None: any
    stages: frozenset[str] = frozenset()  # that all must be there

    def fits(self, engine: Engine) -> bool:
        """True for engines of the same kind, whatever their canvas's width and height."""
        spec, canvas = engine.spec, engine.about.canvas
        return (
            self.model in (spec.model, engine.about.source)
            and spec.backend == self.backend
            and (self.target in spec.targets if self.target else not spec.targets)
            and self._takes(spec)
            and (canvas.latents, canvas.step) == (self.canvas.latents, self.canvas.step)
        )

    def _takes(self, spec: EngineSpec) -> bool:
        """True for engines of the wanted precision; beside fp8, the VAE is in fp16."""
        if self.precision == "fp8" and not spec.stage.startswith("generator"):
            return spec.precision == "fp16"
        return self.precision in (None, spec.precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The canvas to restore on, and why it is that one."""

    how: Literal["exact", "build", "pad", "none"]
    canvas: Canvas
    engines: tuple[Engine, ...]  # by stage, what there is
    reason: str  # one line for `plan` and `run`


def choose(wish: Wish, built: Iterable[Engine]) -> Choice:
    """Engines of exactly the wanted canvas; else the canvas to build now, if that takes less than
    a minute; else the nearest larger one that was built; else nothing, with what to do.

    The time a build takes is that of the slowest set of engines of the same model and backend.
    Engines that are not offered, because fp8 did not pass its gate, count as not built.
    """
    fitting = [engine for engine in built if wish.fits(engine)]
    sets = _complete_sets(wish, [engine for engine in fitting if not engine.refusal])
    if exact := sets.get(wish.canvas):
        reason = f"engines of exactly {wish.canvas}"
        return Choice(how="exact", canvas=wish.canvas, engines=exact, reason=reason)
    seconds = max((_seconds(engines) for engines in sets.values()), default=None)
    if seconds is not None and seconds < BUILD_AT_ONCE:
        reason = (
            f"no engines of {wish.canvas}; {wish.backend} builds them now, as it built others in "
            f"{seconds:.0f} s"
        )
        return Choice(how="build", canvas=wish.canvas, engines=(), reason=reason)
    larger = [canvas for canvas in sets if canvas.holds(wish.canvas)]
    if larger:
        nearest = min(larger, key=lambda canvas: (canvas.area, canvas.width))
        more = nearest.area / wish.canvas.area - 1
        reason = f"{wish.canvas} padded to the engines of {nearest}, {more:.0%} more pixels"
        return Choice(how="pad", canvas=nearest, engines=sets[nearest], reason=reason)
    refused = next((engine.refusal for engine in fitting if engine.refusal), "")
    reason = refused or _remedy(wish, sets)
    return Choice(how="none", canvas=wish.canvas, engines=(), reason=reason)


def _complete_sets(wish: Wish, built: Iterable[Engine]) -> dict[Canvas, tuple[Engine, ...]]:
    """Engines by canvas, one a stage, the last built; canvases that lack a stage are left out."""
    found: dict[Canvas, dict[str, Engine]] = {}
    for engine in sorted(built, key=lambda engine: engine.about.made):
        found.setdefault(engine.about.canvas, {})[engine.spec.stage] = engine
    return {
        canvas: tuple(stages.values())
        for canvas, stages in found.items()
        if wish.stages <= stages.keys()
    }


def _seconds(engines: Iterable[Engine]) -> float:
    """That making all of them took: each engine, and the graphs that they share."""
    times = [engine.about.seconds for engine in engines]
    graphs = max((time.get("graphs", 0.0) for time in times), default=0.0)
    return graphs + sum(time.get("all", 0.0) for time in times)


def _remedy(wish: Wish, sets: dict[Canvas, tuple[Engine, ...]]) -> str:
    there = ", ".join(str(canvas) for canvas in sets) or "none"
    precision = f" --precision {wish.precision}" if wish.precision else ""
    return (
        f"no {wish.backend} engines of {wish.model} hold {wish.canvas} (built: {there}): "
        f"`vr-trt engines build --model {wish.model} --size {wish.canvas} --backend {wish.backend}"
        f"{precision}`"
    )
