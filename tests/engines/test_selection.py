"""Which backend runs what: invented caches and chips, and a line for every compromise."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine_graphs import make_spec

from vr_trt.engines.builder import BACKENDS
from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.chips import CHIPS
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.engines.selection import (
    CPU,
    RTX_CHIPS,
    Asked,
    Machine,
    OwnGraphs,
    needed_stages,
    select,
    usable_backends,
    why_not,
)
from vr_trt.errors import ModelError

ALL = frozenset(BACKENDS)
WIDE = Canvas(width=1280, height=720, latents=6, step=1)
LARGE = Canvas(width=1920, height=1088, latents=6, step=1)
ASKED = Asked(model="tiny", canvas=WIDE)
ADA = Machine(sm=89, installed=ALL, runs=ALL)
HOPPER = Machine(sm=90, installed=ALL, runs=ALL)
NO_GPU = Machine(sm=None, installed=ALL, runs=ALL)
OWN = OwnGraphs(precision="fp32", canvas=None)


def engines(
    backend: str = "tensorrt-rtx",
    stages: Iterable[str] = (),
    canvas: Canvas = WIDE,
    sm: int | None = 89,
    **changes: Any,
) -> list[Engine]:
    """All stages of a whole VAE and the generator, or `stages`, built slowly."""
    about = About(source="tiny", profile="720p", canvas=canvas, seconds={"all": 100.0})
    targets = (sm,) if sm else ()
    return [
        Engine(
            folder=Path(stage),
            spec=make_spec(stage=stage, backend=backend, targets=targets, **changes),
            about=about,
            files={},
        )
        for stage in stages or needed_stages(cut=False)
    ]


def cpu_engines(**changes: Any) -> list[Engine]:
    return engines(CPU, sm=None, **changes)


def test_the_first_backend_that_has_all_of_it() -> None:
    both = [*engines("tensorrt"), *engines(), *cpu_engines()]
    found = select(ASKED, ADA, both)
    assert set(found.backends.values()) == {"tensorrt-rtx"} and found.how == "exact"
    assert set(found.engines) == {*needed_stages(cut=False)}
    assert found.notes == ("engines of exactly 1280x720",)
    assert set(select(ASKED, ADA, cpu_engines()).backends.values()) == {CPU}


def test_a_backend_that_is_asked_for_is_taken() -> None:
    both = [*engines("tensorrt"), *engines()]
    found = select(replace(ASKED, backend="tensorrt"), ADA, both)
    assert set(found.backends.values()) == {"tensorrt"}


def test_a_backend_without_engines_is_named_with_what_builds_them() -> None:
    found = select(ASKED, ADA, cpu_engines())
    assert [note.split(":")[0] for note in found.notes] == [
        "no tensorrt-rtx engines of tiny hold 1280x720 (built",
        "no tensorrt engines of tiny hold 1280x720 (built",
        "no triton engines of tiny hold 1280x720 (built",
        "engines of exactly 1280x720",
    ]
    assert "vr-trt engines build --model tiny --size 1280x720" in found.notes[0]


@pytest.mark.parametrize("network", NETWORK_STAGES)
def test_a_network_without_an_engine_falls_to_the_next_backend_with_one_line(network: str) -> None:
    lost = NETWORK_STAGES[network][1]  # one of its stages is enough
    built = [e for e in engines() if e.spec.stage != lost] + cpu_engines(precision="fp32")
    found = select(ASKED, ADA, built)
    expected = {name: CPU if name == network else "tensorrt-rtx" for name in NETWORK_STAGES}
    assert dict(found.backends) == expected
    assert found.notes == (
        f"{network}: no tensorrt-rtx engine of 1280x720 for it is built; it runs on onnxruntime",
    )
    of_network = {s: e for s, e in found.engines.items() if s in NETWORK_STAGES[network]}
    assert {e.spec.backend for e in of_network.values()} == {CPU}
    assert {e.spec.precision for e in of_network.values()} == {"fp32"}


def test_the_models_own_graphs_stand_in_for_a_missing_network() -> None:
    built = [e for e in engines() if not e.spec.stage.startswith("decode")]
    found = select(replace(ASKED, own=OWN), ADA, built)
    assert found.backends["decoder"] == CPU and found.backends["generator"] == "tensorrt-rtx"
    assert not any(stage.startswith("decode") for stage in found.engines)


def test_own_graphs_of_any_size_on_the_cpu() -> None:
    found = select(replace(ASKED, own=OWN), NO_GPU, ())
    assert (found.canvas, found.how, found.precision) == (WIDE, "exact", "fp32")
    assert found.notes == ("the model's own graphs take any size",)


def test_own_graphs_of_one_size_are_padded_to_and_refused_where_they_are_too_small() -> None:
    own = replace(OWN, canvas=LARGE)
    found = select(replace(ASKED, own=own), NO_GPU, ())
    assert (found.canvas, found.how) == (LARGE, "pad")
    assert found.notes == ("1280x720 padded to the model's graphs of 1920x1088, 127% more pixels",)
    with pytest.raises(ModelError, match="own graphs are fp32, 1280x720, 6 latents, and no onnx"):
        select(replace(ASKED, canvas=LARGE, own=replace(OWN, canvas=WIDE)), NO_GPU, ())
    other = replace(WIDE, latents=5)
    with pytest.raises(ModelError, match="1280x720, 5 latents"):
        select(replace(ASKED, own=replace(OWN, canvas=other)), NO_GPU, ())


def test_another_precision_than_the_own_graphs_needs_engines() -> None:
    asked = replace(ASKED, own=OWN, precision="fp16")
    with pytest.raises(ModelError, match="own graphs are fp32, any size, and no onnxruntime"):
        select(asked, NO_GPU, ())
    assert select(asked, NO_GPU, cpu_engines()).precision == "fp16"


def test_exact_before_padding_whatever_the_precision() -> None:
    built = [*engines(canvas=LARGE, precision="fp16"), *engines(precision="bf16")]
    found = select(ASKED, ADA, built)  # the profile's precision is fp16
    assert (found.how, found.precision) == ("exact", "bf16")
    padded = select(replace(ASKED, precision="fp16"), ADA, built)
    assert (padded.how, padded.canvas) == ("pad", LARGE)
    assert "padded to the engines of 1920x1088" in padded.notes[-1]


def test_a_faster_backend_that_pads_goes_before_a_slower_one_that_does_not() -> None:
    found = select(ASKED, ADA, [*engines(canvas=LARGE), *cpu_engines()])
    assert found.how == "pad" and found.backends["generator"] == "tensorrt-rtx"


def test_a_backend_that_builds_in_under_a_minute_builds() -> None:
    quick = [
        replace(e, about=replace(e.about, seconds={"all": 2.0})) for e in engines(canvas=LARGE)
    ]
    found = select(ASKED, ADA, quick)
    assert (found.how, found.canvas, found.engines) == ("build", WIDE, {})


def test_engines_cut_by_resolution_serve_where_the_profile_is_whole_and_the_other_way() -> None:
    for cut in (False, True):
        built = engines(stages=needed_stages(cut=not cut))
        found = select(replace(ASKED, cut=cut), ADA, built)
        assert set(found.engines) == {*needed_stages(cut=not cut)}
    both = {e.spec.stage: e for c in (False, True) for e in engines(stages=needed_stages(cut=c))}
    found = select(replace(ASKED, cut=True), ADA, both.values())
    assert set(found.engines) == {*needed_stages(cut=True)}


@pytest.mark.parametrize(
    ("backend", "machine", "precision", "says"),
    [
        ("tensorrt-rtx", HOPPER, None, r"does not support sm_90 \(H100, H200\)"),
        ("tensorrt-rtx", NO_GPU, None, "needs an NVIDIA GPU and there is none here"),
        ("tensorrt", replace(ADA, sm=86), "fp8", r"sm_86 \(Ampere, RTX 30\) has no fp8"),
        ("tensorrt", replace(ADA, sm=75), "bf16", r"sm_75 \(Turing\) has no bf16"),
        (CPU, NO_GPU, "bf16", "no bf16 on the CPU"),
        ("tensorrt", replace(ADA, installed=frozenset({CPU})), None, "pip install 'vr-trt"),
        ("tensorrt-rtx", replace(ADA, runs=frozenset({CPU})), None, "cannot run them yet"),
        (
            "triton",
            NO_GPU,
            None,
            "triton needs an NVIDIA GPU and there is none here: use --backend",
        ),
        ("triton", replace(ADA, sm=75), None, r"for sm_80 and later, not sm_75 \(Turing\)"),
        ("triton", replace(ADA, installed=frozenset({CPU})), None, r"pip install 'vr-trt\[gpu\]'"),
    ],
)
def test_a_backend_that_was_asked_for_and_cannot_be_used(
    backend: str, machine: Machine, precision: str | None, says: str
) -> None:
    asked = replace(ASKED, backend=backend, precision=precision)
    with pytest.raises(ModelError, match=says):
        select(asked, machine, engines())
    assert why_not(backend, asked, machine)


def test_on_a_gpu_what_is_passed_over_is_said() -> None:
    usable, notes = usable_backends(ASKED, HOPPER)
    assert usable == ["tensorrt", "triton", CPU]
    assert len(notes) == 1 and notes[0].startswith("tensorrt-rtx is passed over: ")
    usable, notes = usable_backends(ASKED, replace(ADA, runs=frozenset({CPU})))
    assert usable == [CPU] and len(notes) == 2
    assert usable_backends(ASKED, replace(NO_GPU, installed=frozenset({CPU}))) == ([CPU], [])


def test_where_nothing_is_usable_the_reason_is_said() -> None:
    with pytest.raises(ModelError, match="onnxruntime is passed over: .* no bf16 on the CPU"):
        select(replace(ASKED, precision="bf16"), NO_GPU, ())
    bare = Machine(sm=None, installed=frozenset(), runs=ALL)
    with pytest.raises(ModelError, match="onnxruntime is not installed: pip install"):
        select(ASKED, bare, cpu_engines())


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"backend": "quantum"}, "choose auto or one of"), ({"precision": "int3"}, "'int3'")],
)
def test_unknown_names(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        select(replace(ASKED, **changes), ADA, engines())


def test_nothing_at_all() -> None:
    with pytest.raises(ModelError, match="no tensorrt-rtx engines of tiny.*; no tensorrt engines"):
        select(ASKED, ADA, ())


def test_the_chips_of_rtx_are_the_builders() -> None:
    from vr_trt.engines.build_tensorrt_rtx import TARGETS

    assert RTX_CHIPS == TARGETS


BUILT = st.tuples(
    st.sampled_from(BACKENDS),
    st.sampled_from(["fp32", "fp16", "bf16", "fp8"]),
    st.booleans(),
    st.sampled_from([WIDE, LARGE]),
    st.lists(st.sampled_from(needed_stages(cut=False)), max_size=2, unique=True),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(BUILT, max_size=3),
    st.sampled_from([None, *CHIPS]),
    st.sampled_from([None, OWN]),
    st.sampled_from([WIDE, LARGE]),
)
def test_whatever_is_chosen_is_complete_and_told(
    built: list[tuple[str, str, bool, Canvas, list[str]]],
    sm: int | None,
    own: OwnGraphs | None,
    canvas: Canvas,
) -> None:
    there = [
        engine
        for backend, precision, cut, size, lost in built
        for engine in engines(
            backend,
            [stage for stage in needed_stages(cut=cut) if stage not in lost],
            size,
            None if backend == CPU else sm or 89,
            precision=precision,
        )
    ]
    machine = Machine(sm=sm, installed=ALL, runs=ALL)
    try:
        found = select(replace(ASKED, canvas=canvas, own=own), machine, there)
    except ModelError:
        assert own is None
        return
    assert found.notes and found.canvas.width >= canvas.width
    for network, backend in found.backends.items():
        serving = {s: e for s, e in found.engines.items() if s in NETWORK_STAGES[network]}
        assert {e.spec.backend for e in serving.values()} <= {backend}
        assert len({e.spec.precision for e in serving.values()}) <= 1  # states are handed on
        assert {e.about.canvas for e in serving.values()} <= {found.canvas}
        if not serving:
            assert backend == CPU and own
            continue
        needed = [{*needed_stages(cut=cut)} & {*NETWORK_STAGES[network]} for cut in (False, True)]
        assert set(serving) in needed
