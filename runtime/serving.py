"""What a run runs on: the networks opened on the backends that `engines/selection.py` chooses."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from vr_trt.engines.cache import Canvas as Built
from vr_trt.engines.cache import EngineCache
from vr_trt.engines.cards import GIB, CardUse
from vr_trt.engines.local_gpu import Gpu, present_gpu
from vr_trt.engines.profiles import Profile
from vr_trt.engines.rota import NOBODY, Rota, in_words
from vr_trt.engines.selection import (
    CPU,
    Asked,
    Machine,
    OwnGraphs,
    Selection,
    check_names,
    own_graphs,
)
from vr_trt.engines.triton_card import TritonUse
from vr_trt.errors import MemoryBudgetError, ModelError, UsageError
from vr_trt.runtime.canvas import Canvas
from vr_trt.runtime.card_choice import choose_for_card
from vr_trt.runtime.memory import MIB, Law, law_of
from vr_trt.runtime.model import DOWNLOADED, Manifest, Model, find_model, read_manifest
from vr_trt.runtime.onnxruntime_session import OrtOptions

SESSIONS = frozenset({"onnxruntime", "tensorrt", "tensorrt-rtx", "triton"})  # backends that are run
_MODULES = {
    "onnxruntime": ("onnxruntime",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "tensorrt": ("tensorrt",),
    "triton": ("triton", "torch"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which networks, and how, as a user asks for them."""

    model: str
    profile: Profile
    backend: str = "auto"
    precision: str | None = None
    card_memory: float | None = None  # GiB: as if the card had no more


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What a picture or a video of one size runs on."""

    selection: Selection
    canvas: Canvas  # padded as far as the graphs or engines want it
    card: CardUse | None = None  # None on the CPU, and where no law is known

    @property
    def line(self) -> str:
        """Backend, precision, canvas, and why that one."""
        chosen = self.selection
        backends = dict.fromkeys(chosen.backends.values())
        return f"{', '.join(backends)} {chosen.precision} at {chosen.canvas}: {chosen.notes[-1]}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is not as one would expect; nothing where the model's own graphs just fit."""
        chosen, rota = self.selection, self.rota
        plain = not chosen.engines and chosen.how == "exact"
        notes = chosen.notes[:-1] if plain else chosen.notes
        if not rota.sizes:
            return notes
        line = (
            f"{in_words(rota.sizes)} take turns on the card, which spares {rota.spared / 1e9:.1f} GB "
            f"there and moves {self.moved / 1e9:.2f} GB a frame"
        )
        return (*notes, line)

    @property
    def rota(self) -> Rota:
        """The parts that take turns on the card."""
        return self.card.rota if isinstance(self.card, TritonUse) else NOBODY

    @property
    def moved(self) -> int:
        """Bytes over the bus for every frame, since parts take turns."""
        return self.card.moved if isinstance(self.card, TritonUse) else 0


def this_machine(gpu: Gpu | None = None) -> Machine:
    """The GPU's chip, the libraries that are installed, and what this version runs.

    The first GPU, unless it is said which.
    """
    gpu = gpu or present_gpu()
    return Machine(
        sm=gpu.sm if gpu else None,
        memory=gpu.memory if gpu else 0,
        installed=frozenset(n for n, modules in _MODULES.items() if all(map(find_spec, modules))),
        runs=SESSIONS,
    )


def model_folder(model: str) -> Path | None:
    """The folder of `model`'s own graphs; None for one that runs on engines of the cache alone.

    UsageError for an unknown name, ModelError for one that has neither.
    """
    if model in DOWNLOADED and any(
        model in (engine.spec.model, engine.about.source) for engine in EngineCache().engines()
    ):
        return None
    return find_model(model)


class Networks:
    """A model's networks: found for each size, opened when they are needed, kept open."""

    def __init__(self, wanted: Wanted, options: OrtOptions) -> None:
        """Its own graphs are checked now; ModelError, UsageError for what cannot be."""
        try:
            check_names(wanted.backend, wanted.precision)
        except ModelError as error:  # of a run, a name that nobody knows is bad usage
            raise UsageError(str(error)) from None
        self._wanted, self._options = wanted, options
        self._folder = model_folder(wanted.model)
        self._own = Model(self._folder, options) if self._folder else None
        self._opened: tuple[Selection, Rota, Model] | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self._own.manifest.model if self._own else self._wanted.model

    @property
    def law(self) -> Law | None:
        """Of the host's memory, where one is known."""
        return law_of(self._own.manifest) if self._own else None

    def find(self, sizes: Canvas, *, picture: bool = False, gpu: Gpu | None = None) -> Serving:
        """What serves a canvas of `sizes` here, as things are; nothing is built or opened.

        On the first GPU, unless it is said which. ModelError where nothing serves it.
        """
        asked = _asked(self._wanted, self._folder, sizes, picture)
        machine = this_machine() if gpu is None else this_machine(gpu)
        if (limit := self._wanted.card_memory) is not None:
            machine = replace(machine, memory=min(machine.memory, int(limit * GIB)))
        # Where the model's own graphs will do, the cache may be unreadable.
        enough = machine.sm is None and asked.backend in ("auto", CPU) and own_graphs(asked)
        built = [] if enough else [*EngineCache().engines()]
        wanted = self._wanted
        selection, card = choose_for_card(asked, machine, built, wanted.model, wanted.profile)
        canvas = replace(sizes, padded_w=selection.canvas.width, padded_h=selection.canvas.height)
        return Serving(selection=selection, canvas=canvas, card=card)

    def check_card(self, serving: Serving) -> None:
        """MemoryBudgetError where the card has too little."""
        card = serving.card
        if card and not card.fits:
            raise MemoryBudgetError(
                f"{self.name} at {serving.selection.canvas} needs about {card.needed // MIB} MiB on "
                f"the card and {card.usable // MIB} MiB are usable: {card.advice}"
            )

    def open(self, serving: Serving) -> Model:
        """The networks of `serving`, built first if it counts on that; new ones after a cancel."""
        selection, rota = serving.selection, serving.rota
        self.check_card(serving)
        if self._opened:
            *opened, model = self._opened
            if opened == [selection, rota] and not model.cancelled:
                return model
            model.close()
        engines = self._built(serving) if selection.how == "build" else selection
        if not engines.engines and self._folder:
            if self._own is None or self._own.cancelled:
                self._own = Model(self._folder, self._options)
            return self._own
        model = _open_engines(engines, self._options, self._own, rota)
        self._opened = selection, rota, model
        return model

    def close(self) -> None:
        """Drop the networks; they are opened again when they are needed."""
        for model in self._models():
            model.close()

    def cancel(self) -> None:
        """Stop what runs, from any thread."""
        for model in self._models():
            model.cancel()

    def _models(self) -> list[Model]:
        opened = [self._opened[2]] if self._opened else []
        return [*opened, self._own] if self._own else opened

    def _built(self, serving: Serving) -> Selection:
        """The same with its engines, which are built now."""
        from vr_trt.engines.build import BuildRequest, build_engines

        chosen, wanted = serving.selection, self._wanted
        request = BuildRequest(
            model=wanted.model,
            profile=wanted.profile.name,
            canvas=chosen.canvas,
            backend=chosen.backends["generator"],
            precision=chosen.precision,
            cut=wanted.profile.cut,
        )
        engines = {outcome.stage: outcome.engine for outcome in build_engines(request)}
        return replace(chosen, how="exact", engines=engines)


def _open_engines(
    selection: Selection, options: OrtOptions, own: Model | None, rota: Rota
) -> Model:
    """ModelError for an engine that is damaged: all of it is read."""
    for engine in selection.engines.values():
        engine.check()
        engine.mark_used()
    return Model.of_engines(selection.engines, options, own, tuple(rota.sizes))


def _asked(wanted: Wanted, folder: Path | None, sizes: Canvas, picture: bool) -> Asked:
    profile = wanted.profile
    canvas = Built(
        width=sizes.padded_w,
        height=sizes.padded_h,
        latents=profile.window_latents,
        step=profile.latents_per_step,
    )
    return Asked(
        model=str(folder.resolve()) if folder == Path(wanted.model) else wanted.model,
        canvas=canvas,
        backend=wanted.backend,
        precision=wanted.precision,
        profile_precision=profile.precision,
        cut=profile.cut,
        own=_own(read_manifest(folder), canvas, picture) if folder else None,
    )


def _own(manifest: Manifest, canvas: Built, picture: bool) -> OwnGraphs:
    """The model's own graphs; those of one size step as they do, whatever the profile says."""
    fixed = None
    if manifest.shape is not None:
        shape = dict(manifest.shape)
        if picture and "generator_image" in manifest.stages:
            shape["latents"] = canvas.latents  # it has a generator of its own
        names = ("width", "height", "latents")
        fixed = replace(canvas, **{name: shape[name] for name in names})
    return OwnGraphs(precision=manifest.precision, canvas=fixed)
