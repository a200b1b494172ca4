"""Building a profile's engines: graphs found or made, and each stage built unless it is there."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vr_trt.engines.build_process import Built, build_in_process
from vr_trt.engines.builder import Builder, find_builder
from vr_trt.engines.cache import About, Engine, EngineCache, seal
from vr_trt.engines.child import Moment
from vr_trt.engines.graphs import STAGES, GraphRequest, Graphs, find_graphs
from vr_trt.engines.host_memory import available_bytes
from vr_trt.engines.onnx_file import OnnxFile
from vr_trt.engines.spec import Change, EngineSpec
from vr_trt.engines.store import CACHE_VARIABLE, writing
from vr_trt.errors import MemoryBudgetError, ModelError

MIB, GIB = 1 << 20, 1 << 30
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1}
_SPARE_DISK = 64 << 20
_PLAN_PER_WEIGHT = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest(GraphRequest):
    """What to build, and from which graphs."""

    backend: str
    targets: tuple[int, ...] = ()  # compute capabilities; empty: the backend's own choice
    options: Mapping[str, str] = field(default_factory=dict)  # the backend's own


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one stage."""

    stage: str
    engine: Engine
    action: Literal["found", "built"]
    reason: str = ""  # why it was built, where an earlier one was not good enough
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Who hears of a build."""

    doing: Callable[[str, Moment], None] = lambda what, moment: None
    done: Callable[[Outcome], None] = lambda outcome: None
    says: Callable[[str], None] = lambda line: None


def build_engines(
    request: BuildRequest, watch: Watch | None = None, cache: Path | None = None
) -> list[Outcome]:
    """Build every stage of `request` that is not in the cache yet.

    ModelError for what cannot be built, MemoryBudgetError for what would not fit; stages that were
    finished before stay.
    """
    watch = watch or Watch()
    builder = find_builder(request.backend)
    if reason := builder.available():
        raise ModelError(reason)
    if unknown := set(request.stages) - set(STAGES):
        raise ModelError(
            f"unknown stage {', '.join(sorted(unknown))}: choose of {', '.join(STAGES)}"
        )
    if not builder.cuts:
        if request.cut:
            watch.says(f"{builder.name} has the VAE in one piece: it saves memory by other means")
        request = replace(request, cut=False)
    targets = tuple(sorted(set(request.targets or builder.default_targets)))
    flags = builder.flags(request.options)
    _check(builder, request.precision or request.default_precision, targets)
    graphs = _graphs(request, watch, cache)
    _check(builder, graphs.precision, targets)
    outcomes = []
    for stage in graphs.files:
        graph = graphs.read(stage)
        spec = _spec(graphs, stage, graph, builder, (targets, flags))
        job = _Job(request=request, builder=builder, graphs=graphs, watch=watch)
        outcome = _Stage(job, spec, graph, EngineCache(cache)).outcome()
        watch.done(outcome)
        outcomes.append(outcome)
    return outcomes


def _check(builder: Builder, precision: str, targets: tuple[int, ...]) -> None:
    for sm in targets or (None,):
        builder.check(precision, sm)


def _graphs(request: BuildRequest, watch: Watch, cache: Path | None) -> Graphs:
    graphs = find_graphs(request, lambda moment: watch.doing("export", moment), cache)
    if graphs.is_new:
        watch.says(
            f"graphs: {graphs.model} {graphs.precision} {request.canvas}, {graphs.seconds:.1f} s"
        )
    return graphs


def _spec(
    graphs: Graphs,
    stage: str,
    graph: OnnxFile,
    builder: Builder,
    asked: tuple[tuple[int, ...], Mapping[str, str]],
) -> EngineSpec:
    shapes = {}
    for name, sizes in graph.inputs.items():
        if sizes is None:
            raise ModelError(f"{graph.path}: the size of its input {name} is not fixed")
        shapes[name] = sizes
    targets, flags = asked
    return EngineSpec(
        model=graphs.model,
        weights=graphs.weights_of(stage),
        stage=stage,
        onnx=graph.sha256,
        shapes=shapes,
        precision=graphs.precision_of(stage),
        backend=builder.name,
        backend_version=builder.version(),
        targets=targets,
        flags=flags,
        recipe=builder.recipe,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What the stages of one request have in common."""

    request: BuildRequest
    builder: Builder
    graphs: Graphs
    watch: Watch


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage on its way into the cache."""

    job: _Job
    spec: EngineSpec
    graph: OnnxFile
    cache: EngineCache

    def outcome(self) -> Outcome:
        spec, store = self.spec, self.cache.store
        found, reason = self._found()
        if found:
            return Outcome(stage=spec.stage, engine=self._marked(found), action="found")
        near = None if reason else self.cache.nearest(spec, self.job.request.profile)
        changes = tuple(near[1]) if near else ()
        with store.lock(spec.folder_name, self._wait):
            found, reason = self._found()  # by another process, meanwhile
            if found:
                return Outcome(stage=spec.stage, engine=found, action="found")
            engine = self._built()
        return Outcome(
            stage=spec.stage, engine=engine, action="built", reason=reason, changes=changes
        )

    def _found(self) -> tuple[Engine | None, str]:
        try:
            return self.cache.find(self.spec), ""
        except ModelError as error:
            return None, str(error)

    def _wait(self) -> None:
        self.job.watch.says(
            f"{self.spec.stage}: another process builds this engine, waiting for it"
        )

    def _built(self) -> Engine:
        spec = self.spec
        estimate = self.job.builder.estimate_memory(spec, self.graph.weight_bytes)
        self._refuse_what_does_not_fit(estimate)
        with self.cache.store.publishing(spec.folder_name) as folder:
            built = build_in_process(
                spec, self.graph.path, folder, lambda m: self.job.watch.doing(spec.stage, m)
            )
            seal(folder, spec, self._about(built, estimate))
        for note in built.report.notes:
            self.job.watch.says(f"{spec.stage}: {note}")
        return Engine.read(self.cache.store.path(spec.folder_name))

    def _about(self, built: Built, estimate: int) -> About:
        return About(
            source=self.job.request.model,
            profile=self.job.request.profile,
            canvas=self.job.request.canvas,
            cut=self.job.graphs.cut,
            options=self.job.request.options,
            seconds={
                **built.report.seconds,
                "all": built.seconds,
                "graphs": self.job.graphs.seconds,
            },
            peak_bytes=built.peak_bytes,
            estimated_bytes=estimate,
            facts=built.report.facts,
            gate=self._gate(),
            detail=self.job.graphs.detail,
        )

    def _gate(self) -> Mapping[str, Any] | None:
        """The verdict that the engine is marked with."""
        return self.job.graphs.gate if self.spec.precision == "fp8" else None

    def _marked(self, engine: Engine) -> Engine:
        """The engine that was found, its mark brought up to date: a gate may come after a build."""
        if engine.about.gate == self._gate():
            return engine
        marked = replace(engine, about=replace(engine.about, gate=self._gate()))
        with self.cache.store.lock(self.spec.folder_name, self._wait), writing(engine.folder):
            marked.write()
        return marked

    def _refuse_what_does_not_fit(self, estimate: int) -> None:
        spec, free = self.spec, available_bytes()
        if free is not None and estimate > free:
            raise MemoryBudgetError(
                f"building {spec.stage} of {spec.model} in {spec.precision} needs about "
                f"{_size(estimate)} of memory and {_size(free)} are free: "
                f"{self._what_fits(free)}"
            )
        disk = int(self.graph.weight_bytes * _PLAN_PER_WEIGHT) + _SPARE_DISK
        root = self.cache.store.root
        while not root.exists():
            root = root.parent
        room = shutil.disk_usage(root).free
        if disk > room:
            raise MemoryBudgetError(
                f"the plan of {spec.stage} needs about {_size(disk)} and the disk of {root} "
                f"has {_size(room)} free: `vr-trt engines prune`, or set {CACHE_VARIABLE}"
            )

    def _what_fits(self, free: int) -> str:
        for precision, size in _BYTES.items():
            smaller = self.graph.weight_bytes * size // _BYTES[self.spec.precision]
            if self.job.builder.estimate_memory(self.spec, smaller) <= free:
                return f"--precision {precision} would fit"
        return "free memory, or build on a larger machine: the engine can be copied"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
