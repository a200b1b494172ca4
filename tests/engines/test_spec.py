"""Digests of specs: stable, blind to order, and different for whatever decides a plan."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine_graphs import make_spec

from vr_trt.engines.spec import EngineSpec, difference, is_engine_name

WORDS = st.text(max_size=8)
TABLES = st.dictionaries(WORDS, WORDS, max_size=3)


SIZES = st.lists(st.integers(1, 4000), max_size=5).map(tuple)
SPECS = st.builds(
    EngineSpec,
    model=WORDS,
    weights=TABLES,
    stage=WORDS,
    onnx=WORDS,
    shapes=st.dictionaries(WORDS, SIZES, max_size=3),
    precision=WORDS,
    backend=WORDS,
    backend_version=WORDS,
    targets=st.lists(st.integers(50, 130), max_size=3, unique=True).map(sorted).map(tuple),
    flags=TABLES,
    recipe=st.integers(1, 99),
)


@given(SPECS)
def test_json_gives_the_spec_back(spec: EngineSpec) -> None:
    again = EngineSpec.from_json(json.loads(json.dumps(spec.as_json())))
    assert again == spec and again.digest == spec.digest and not difference(spec, again)


@given(SPECS, SPECS)
def test_digests_differ_exactly_when_fields_do(one: EngineSpec, other: EngineSpec) -> None:
    assert (one.digest == other.digest) == (not difference(one, other))


@given(SPECS)
def test_names_stay_in_their_folder(spec: EngineSpec) -> None:
    assert is_engine_name(spec.folder_name) and spec.folder_name.endswith(spec.digest[:12])
    assert Path(spec.folder_name).name == spec.folder_name


@given(SPECS)
def test_the_order_of_tables_does_not_matter(spec: EngineSpec) -> None:
    backwards: dict[str, Any] = {
        name: dict(reversed(list(getattr(spec, name).items())))
        for name in ("weights", "shapes", "flags")
    }
    assert dataclasses.replace(spec, **backwards).digest == spec.digest


CHANGES: list[tuple[str, Any, str]] = [
    ("model", "other", "model tiny -> other"),
    ("weights", {"weights.safetensors": "00" * 32}, "weights.weights.safetensors ababababab"),
    ("stage", "encode_step", "stage generator -> encode_step"),
    ("onnx", "00" * 32, "onnx cdcdcdcdcdcd… -> 000000000000…"),
    ("shapes", {"noise": (1, 2)}, "shapes.noise [1, 16, 6, 4, 8] -> [1, 2]"),
    ("precision", "bf16", "precision fp16 -> bf16"),
    ("backend", "tensorrt", "backend tensorrt-rtx -> tensorrt"),
    ("backend_version", "1.8", "backend_version 1.7.1 -> 1.8"),
    ("targets", (89,), "targets [89, 120] -> [89]"),
    ("flags", {}, "flags.weight_streaming no -> none"),
    ("recipe", 2, "recipe 1 -> 2"),
]


@pytest.mark.parametrize(("field", "value", "line"), CHANGES)
def test_a_change_of_any_field_is_named(field: str, value: Any, line: str) -> None:
    old, new = make_spec(), make_spec(**{field: value})
    changes = difference(old, new)
    assert len(changes) == 1 and str(changes[0]).startswith(line)
    assert new.digest != old.digest and new.folder_name != old.folder_name


def test_every_field_counts() -> None:
    assert {field for field, _, _ in CHANGES} == {f.name for f in dataclasses.fields(EngineSpec)}


def test_the_digest_is_the_same_on_every_machine() -> None:
    assert make_spec().digest == "b2fbddb29be3c963bf903de5c07eb3ac11a2cb1f20be521a5602b635157c134d"
    assert make_spec().folder_name.startswith("generator-tiny-fp16-tensorrt-rtx-sm89-sm120-")
    assert make_spec(targets=()).folder_name.startswith("generator-tiny-fp16-tensorrt-rtx-cpu-")


def test_an_input_without_elements_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise has no elements: \(1, 0\)"):
        make_spec(shapes={"noise": (1, 0)})


def test_foreign_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        EngineSpec.from_json({**make_spec().as_json(), "colour": "red"})
    with pytest.raises(ValueError, match="ascend"):
        make_spec(targets=(120, 89))
