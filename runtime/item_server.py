"""The workers of one run, and how each is opened in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt.errors import UsageError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.input_identity import input_digest
from vr_trt.runtime.item_work import ItemWorker, Opened
from vr_trt.runtime.pixel_stages import Correction
from vr_trt.runtime.plan import Plan
from vr_trt.runtime.recipe import Recipe
from vr_trt.runtime.serving import Wanted
from vr_trt.runtime.spread_run import Crew
from vr_trt.runtime.worker_group import WorkerGroup, check_workers_memory, find_cards
from vr_trt.runtime.workers import Pool
from vr_trt.runtime.writer import OutputSpec


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
            if info.images:
                raise UsageError(f"{info.path} is not on a worker's machine: share that folder")
            copy = folder / info.path.name
            fetch(info.path, copy)
            info = replace(info, path=copy)
        info = replace(info, nvdec=False)  # that machine's GPU was not asked
        return replace(self, info=info, folder=folder)._opened(ship=True)

    def _opened(self, ship: bool) -> ItemWorker:
        recipe = Recipe(self.wanted, self.seed, self.color, self.threads)
        plan = recipe.plan(self.info, self.spec.path)
        opened = Opened(make_work=lambda: recipe.work(plan, self.spec), engines=plan.serving.line)
        return ItemWorker(opened, self.info, self.spec, self.folder, ship)


def make_crew(recipe: Recipe, plan: Plan, spec: OutputSpec, group: WorkerGroup) -> Crew:
    """The workers of one run. MemoryBudgetError, UsageError where there cannot be so many."""
    servings, cards = [plan.serving], find_cards(group.gpus)
    if cards:
        info = plan.source
        sizes = canvas(info.width, info.height, recipe.profile.short_side)
        servings = [recipe.networks.find(sizes, gpu=card) for card in cards]
    for serving in servings:
        recipe.networks.check_card(serving)
    if group.cluster is None:
        check_workers_memory(plan, group.size)

    def open_pool(folder: Path) -> Pool:
        opener = OpenItemWorker(
            wanted=replace(recipe.wanted, model=full_model_name(recipe.wanted.model)),
            seed=recipe.seed,
            color=recipe.color,
            threads=group.threads,
            info=_by_full_names(plan.source),
            spec=spec,
            folder=folder,
            digest=input_digest(plan.source.path),
        )
        return group.pool(opener, on_gpu=plan.serving.selection.on_gpu)

    engines = frozenset(serving.line for serving in servings)
    alike = len(engines) == 1 and len({card.name for card in cards}) <= 1
    return Crew(open_pool=open_pool, profile=recipe.profile, engines=engines, alike=alike)


def full_model_name(model: str) -> str:
    """A model's name, or its folder whatever folder a worker is in."""
    return str(Path(model).resolve()) if (Path(model) / "manifest.json").is_file() else model


def _by_full_names(info: VideoInfo) -> VideoInfo:
    """A worker on another machine is in another folder."""
    images = tuple(path.resolve() for path in info.images)
    return replace(info, path=info.path.resolve(), images=images)
