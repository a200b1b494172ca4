"""Which backend runs each network of a model, on which canvas, and one line for every compromise.

Pure: what is built, what the chip can do and what this version runs come in as arguments.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vr_trt.engines.builder import BACKENDS
from vr_trt.engines.cache import Canvas, Engine
from vr_trt.engines.chips import CHIPS, check_chip, check_precision, listed
from vr_trt.engines.choose import Choice, Wish, choose
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.errors import ModelError

RTX_CHIPS = (75, 80, 86, 89, 120, 121)  # that TensorRT-RTX serves
OLDEST_TRITON_CHIP = 80
CPU = "onnxruntime"
_RANKS = ("exact", "build", "pad")
INSTALL = {
    "tensorrt-rtx": "pip install 'vr-trt[rtx]'",
    "tensorrt": "pip install 'vr-trt[tensorrt]'",
    "triton": "pip install 'vr-trt[gpu]'",
    CPU: "pip install 'vr-trt[cpu]'",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a run may use here."""

    sm: int | None  # compute capability of the GPU; None: there is none
    memory: int = 0  # bytes of the GPU
    installed: frozenset[str]  # backends whose library is there
    runs: frozenset[str]  # backends that this version has sessions for


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnGraphs:
    """Graphs that come with the model: ONNX Runtime takes them as they are."""

    precision: str
    canvas: Canvas | None  # None: of any size


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to run."""

    model: str
    canvas: Canvas  # padded to the networks' cells, no more
    backend: str = "auto"
    precision: str | None = None  # None: the profile's first, then any
    profile_precision: str = "fp16"
    cut: bool = False  # as the profile says; engines of the other kind serve too
    own: OwnGraphs | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What runs."""

    canvas: Canvas
    how: str  # exact, build or pad: see `choose`
    backends: Mapping[str, str]  # by network: encoder, generator, decoder
    engines: Mapping[str, Engine]  # by stage; what is missing here, the model's own graphs do
    precision: str
    notes: tuple[str, ...]  # a line each

    @property
    def on_gpu(self) -> bool:
        """Whether any network runs on the GPU."""
        return any(backend != CPU for backend in self.backends.values())


def select(asked: Asked, machine: Machine, built: Iterable[Engine]) -> Selection:
    """The backend that comes first and has all that is needed; ModelError says what would help.

    A network that lacks an engine in the first backend falls to the next one that has it, with a
    line of its own.
    """
    engines = list(built)
    backends, notes = usable_backends(asked, machine)
    remedies: list[str] = []
    for place, backend in enumerate(backends):
        target = None if backend == CPU else machine.sm
        found = _complete(asked, backend, target, engines)
        found = found or _mixed(asked, backends[place:], machine, engines)
        if found:
            return replace(found, notes=(*notes, *remedies, *found.notes))
        remedies.append(_missing(asked, backend, target, engines))
    raise ModelError("; ".join([*notes, *remedies]))


def check_names(backend: str, precision: str | None) -> None:
    """ModelError for a backend or a precision that nobody knows."""
    if precision:
        check_precision(precision)
    if backend not in ("auto", *BACKENDS):
        raise ModelError(
            f"unknown backend {backend!r}: choose auto or one of {', '.join(BACKENDS)}"
        )


def usable_backends(asked: Asked, machine: Machine) -> tuple[list[str], list[str]]:
    """The backends to try in order, and why those that one would expect are not among them.

    ModelError where one that was asked for cannot be used.
    """
    check_names(asked.backend, asked.precision)
    if asked.backend != "auto":
        if reason := why_not(asked.backend, asked, machine):
            raise ModelError(reason)
        return [asked.backend], []
    usable, notes = [], []
    for backend in BACKENDS:
        reason = why_not(backend, asked, machine)
        if reason is None:
            usable.append(backend)
        elif backend == CPU or (machine.sm is not None and backend != "triton"):
            notes.append(f"{backend} is passed over: {reason}")
    return usable, notes


def why_not(backend: str, asked: Asked, machine: Machine) -> str | None:
    """None, or why `backend` cannot run here, with what would help."""
    if backend == CPU:
        if asked.precision == "bf16":
            return "onnxruntime has no bf16 on the CPU: choose fp32 or fp16"
    else:
        if machine.sm is None:
            return f"{backend} needs an NVIDIA GPU and there is none here: use --backend {CPU}"
        if backend == "tensorrt-rtx" and machine.sm not in RTX_CHIPS:
            return (
                f"tensorrt-rtx does not support sm_{machine.sm} ({CHIPS.get(machine.sm, '?')}), "
                f"only {listed(RTX_CHIPS)}: use --backend tensorrt"
            )
        if backend == "triton" and machine.sm < OLDEST_TRITON_CHIP:
            return (
                f"triton's kernels are for sm_{OLDEST_TRITON_CHIP} and later, not sm_{machine.sm} "
                f"({CHIPS.get(machine.sm, '?')}): use --backend tensorrt-rtx"
            )
        if asked.precision:
            try:
                check_chip(asked.precision, machine.sm)
            except ModelError as error:
                return str(error)
    if backend not in machine.installed:
        return f"{backend} is not installed: {INSTALL[backend]}"
    if backend not in machine.runs:
        return f"this version builds {backend} engines and cannot run them yet: use --backend {CPU}"
    return None


def _complete(
    asked: Asked, backend: str, target: int | None, engines: Sequence[Engine]
) -> Selection | None:
    """All networks on one backend: its own graphs, or engines by the rule of `choose`."""
    if backend == CPU and (own := own_graphs(asked)):
        return own
    found = []
    for precision in _precisions(asked, backend, engines):
        for stages in _forms(asked):
            choice = choose(_wish(asked, backend, target, precision, stages), engines)
            if choice.how != "none":
                found.append(_chosen(choice, stages, backend, precision))
    return min(found, key=lambda f: _RANKS.index(f.how), default=None)  # the first of equals


def _chosen(choice: Choice, stages: frozenset[str], backend: str, precision: str) -> Selection:
    return Selection(
        canvas=choice.canvas,
        how=choice.how,
        backends=dict.fromkeys(NETWORK_STAGES, backend),
        engines={e.spec.stage: e for e in choice.engines if e.spec.stage in stages},
        precision=precision,
        notes=(choice.reason,),
    )


def own_graphs(asked: Asked) -> Selection | None:
    """The model's own graphs, where they hold the canvas and are in the precision asked for."""
    own = asked.own
    if own is None or asked.precision not in (None, own.precision):
        return None
    canvas, how, line = asked.canvas, "exact", "the model's own graphs take any size"
    if own.canvas is not None:
        canvas, line = own.canvas, f"the model's own graphs are of exactly {own.canvas}"
        if not own.canvas.holds(asked.canvas):
            return None
        if own.canvas != asked.canvas:
            how, more = "pad", own.canvas.area / asked.canvas.area - 1
            line = f"{asked.canvas} padded to the model's graphs of {own.canvas}, {more:.0%} more pixels"
    return Selection(
        canvas=canvas,
        how=how,
        backends=dict.fromkeys(NETWORK_STAGES, CPU),
        engines={},
        precision=own.precision,
        notes=(line,),
    )


def _mixed(
    asked: Asked, backends: Sequence[str], machine: Machine, engines: Sequence[Engine]
) -> Selection | None:
    """Networks on different backends at the very canvas; None unless the first has at least one."""
    chosen: dict[str, tuple[str, str, dict[str, Engine]]] = {}
    notes = []
    for network in NETWORK_STAGES:
        lacking = ""
        for backend in backends:
            target = None if backend == CPU else machine.sm
            served = _network(asked, network, backend, target, engines)
            if served:
                chosen[network] = (backend, *served)
                break
            lacking = lacking or f"{network}: no {backend} engine of {asked.canvas} for it is built"
        else:
            return None
        if lacking:
            notes.append(f"{lacking}; it runs on {chosen[network][0]}")
    if all(backend != backends[0] for backend, _, _ in chosen.values()):
        return None
    return Selection(
        canvas=asked.canvas,
        how="exact",
        backends={network: backend for network, (backend, _, _) in chosen.items()},
        engines={s: e for _, _, stages in chosen.values() for s, e in stages.items()},
        precision=next(p for b, p, _ in chosen.values() if b == backends[0]),
        notes=tuple(notes),
    )


def _network(
    asked: Asked, network: str, backend: str, target: int | None, engines: Sequence[Engine]
) -> tuple[str, dict[str, Engine]] | None:
    """Precision and engines, by stage, of one network on one backend at the very canvas."""
    own = own_graphs(asked) if backend == CPU else None
    if own and own.how == "exact":
        return own.precision, {}
    for precision in _precisions(asked, backend, engines):
        for stages in _forms(asked):
            wanted = stages & frozenset(NETWORK_STAGES[network])
            choice = choose(_wish(asked, backend, target, precision, wanted), engines)
            if choice.how == "exact":
                return precision, {
                    e.spec.stage: e for e in choice.engines if e.spec.stage in wanted
                }
    return None


def _forms(asked: Asked) -> Iterator[frozenset[str]]:
    """The stages that are needed: with the VAE as the profile has it, then the other way."""
    for cut in (asked.cut, not asked.cut):
        yield frozenset(needed_stages(cut=cut))


def needed_stages(*, cut: bool) -> list[str]:
    """Every stage of a model: a film may turn out to have one frame."""
    halves = ("_fine", "_coarse") if cut else ("",)
    coder = [f"{half}_{call}" for half in halves for call in ("start", "step")]
    ends = [f"{verb}{part}" for verb in ("encode", "decode") for part in (*coder, "_image")]
    return [*ends, "generator", "generator_image"]


def _precisions(asked: Asked, backend: str, engines: Sequence[Engine]) -> list[str]:
    if asked.precision:
        return [asked.precision]
    there = {e.spec.precision for e in engines if e.spec.backend == backend}
    return sorted(there, key=lambda p: (p != asked.profile_precision, p))


def _wish(
    asked: Asked, backend: str, target: int | None, precision: str | None, stages: frozenset[str]
) -> Wish:
    return Wish(
        model=asked.model,
        canvas=asked.canvas,
        backend=backend,
        target=target,
        precision=precision,
        stages=stages,
    )


def _missing(asked: Asked, backend: str, target: int | None, engines: Sequence[Engine]) -> str:
    """One line: what there is of this backend, and the command that builds what is wanted."""
    wish = _wish(asked, backend, target, asked.precision, frozenset(needed_stages(cut=asked.cut)))
    line = choose(wish, engines).reason
    if backend != CPU or asked.own is None:
        return line
    own = asked.own
    size = f"{own.canvas}, {own.canvas.latents} latents" if own.canvas else "any size"
    return f"its own graphs are {own.precision}, {size}, and {line}"
