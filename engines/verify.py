"""Reading every engine again: is it whole, is it what it says, and would it be built so today?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from vr_trt.engines.builder import find_builder
from vr_trt.engines.cache import MANIFEST, Engine, EngineCache, State
from vr_trt.engines.graphs import GraphRequest, existing_graphs
from vr_trt.engines.spec import Change, EngineSpec, difference
from vr_trt.errors import ModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found out about one folder of the cache."""

    name: str
    state: State
    detail: str = ""
    engine: Engine | None = None


def examine(cache: Path | None = None) -> Iterator[Finding]:
    """Every folder of the cache; reads all of every plan."""
    store = EngineCache(cache).store
    for name in store.names():
        yield examine_engine(store.path(name), cache)
    for path in store.leftovers():
        yield Finding(name=path.name, state="leftover", detail="of a build that was killed")


def examine_engine(folder: Path, cache: Path | None = None) -> Finding:
    """The engine in `folder`."""
    try:
        engine = Engine.read(folder)
    except ModelError as error:
        state: State = "damaged" if (folder / MANIFEST).is_file() else "foreign"
        state = "foreign" if "is foreign" in str(error) else state
        return Finding(name=folder.name, state=state, detail=str(error))
    try:
        engine.check()
    except ModelError as error:
        return Finding(name=folder.name, state="damaged", detail=str(error), engine=engine)
    if changes := staleness(engine, cache):
        detail = "; ".join(str(change) for change in changes)
        return Finding(name=folder.name, state="stale", detail=detail, engine=engine)
    return Finding(name=folder.name, state="ok", engine=engine)


def staleness(engine: Engine, cache: Path | None = None) -> list[Change]:
    """The fields in which the engine's spec is not what it would be today.

    What cannot be known here (a backend that is not installed, weights that are not here) counts as
    unchanged.
    """
    return difference(engine.spec, _today(engine, cache))


def _today(engine: Engine, cache: Path | None) -> EngineSpec:
    spec = engine.spec
    try:
        builder = find_builder(spec.backend)
        if builder.available() is None:
            spec = replace(
                spec,
                backend_version=builder.version(),
                recipe=builder.recipe,
                flags=builder.flags(engine.about.options),
            )
    except ModelError:  # a backend or an option of another version
        return replace(spec, recipe=spec.recipe + 1)
    graphs = _graphs_today(engine, cache)
    if graphs is None:
        return spec
    weights, onnx = graphs
    return replace(spec, weights=weights, onnx=onnx)


def _graphs_today(engine: Engine, cache: Path | None) -> tuple[dict[str, str], str] | None:
    """The hashes of the weights and of the graph that a build would take now, if they are here."""
    spec, about = engine.spec, engine.about
    if find_spec("onnx") is None:
        return None
    request = GraphRequest(
        model=about.source,
        canvas=about.canvas,
        profile=about.profile,
        precision=spec.precision,
        default_precision=spec.precision,
        default_cut=about.cut,
        stages=(spec.stage,),
    )
    try:
        graphs = existing_graphs(request, cache)
    except ModelError:  # not here any more: nothing is known
        return None
    if graphs is None:
        return None
    return graphs.weights_of(spec.stage), graphs.read(spec.stage).sha256
