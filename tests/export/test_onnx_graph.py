"""Exported graphs: valid, static, named by layer, and silent about where they were made."""

import getpass
import hashlib
from pathlib import Path

import onnx
import pytest
from tests.exported_graphs import (
    ANY_SIZE_OPERATORS,
    ANY_SIZE_STAGES,
    PORTRAIT,
    STAGES,
    check_static,
    dims,
)
from tests.tiny_model import (
    Exported,
    TinyModel,
)

import vr_trt


@pytest.mark.parametrize("stage", [*STAGES, "generator", "generator_image"])
def test_static_graphs_are_static(stage: str, portrait: Exported) -> None:
    check_static(portrait, stage)


@pytest.mark.parametrize("stage", ANY_SIZE_STAGES)
def test_graphs_of_any_size_have_no_data_dependent_operator(stage: str, any_size: Exported) -> None:
    onnx.checker.check_model(any_size.folder / f"{stage}.onnx", full_check=True)
    model = any_size.model(stage)
    assert {node.op_type for node in model.graph.node} - ANY_SIZE_OPERATORS == set()
    sizes = dims(model.graph.input[0])
    assert [isinstance(size, str) for size in sizes[-2:]] == [True, True]
    assert isinstance(sizes[0], int) and isinstance(sizes[1], int)


def test_shapes_are_the_profile_s(portrait: Exported) -> None:
    h, w, k = PORTRAIT.h, PORTRAIT.w, PORTRAIT.step
    wanted = {
        "encode_start": ([1, 3, 5, 48, 32], [1, 16, 2, h, w]),
        "encode_step": ([1, 3, 4 * k, 48, 32], [1, 16, k, h, w]),
        "encode_image": ([1, 3, 1, 48, 32], [1, 16, 1, h, w]),
        "decode_start": ([1, 16, 2, h, w], [1, 3, 5, 48, 32]),
        "decode_step": ([1, 16, k, h, w], [1, 3, 4 * k, 48, 32]),
        "decode_image": ([1, 16, 1, h, w], [1, 3, 1, 48, 32]),
        "generator": ([1, 16, 6, h, w], [1, 16, 6, h, w]),
        "generator_image": ([1, 16, 1, h, w], [1, 16, 1, h, w]),
    }
    for stage, (given, made) in wanted.items():
        graph = portrait.model(stage).graph
        assert (dims(graph.input[0]), dims(graph.output[0])) == (given, made)


def test_inputs_and_outputs_are_named_as_agreed(portrait: Exported, any_size: Exported) -> None:
    encode, decode = ("encode", "x", "latent"), ("decode", "latent", "x")
    for given, coders in ((portrait, (encode, decode)), (any_size, (encode,))):
        for verb, came, result in coders:
            start, step, image = (
                given.model(f"{verb}_{c}").graph for c in ("start", "step", "image")
            )
            assert [i.name for i in start.input] == [i.name for i in image.input] == [came]
            assert [o.name for o in image.output] == [result]
            kept = [o.name for o in start.output[1:]]
            assert kept and [o.name for o in step.output] == [result, *kept]
            assert start.output[0].name == result
            states = [name.replace("next.", "state.", 1) for name in kept]
            assert [i.name for i in step.input] == [came, *states]
            for out, into in zip(step.output[1:], step.input[1:], strict=True):
                assert dims(out) == dims(into)  # what comes out goes in again
    tables = [f"{part}.{name}" for part in ("plain", "shifted")
              for name in ("index", "mask", "place", "cos", "sin")]  # fmt: skip
    for given, more in ((portrait, []), (any_size, tables)):
        graph = given.model("generator").graph
        assert [i.name for i in graph.input] == ["noise", "latent", *more]
        assert [o.name for o in graph.output] == ["restored"]


@pytest.mark.parametrize("stage", [*STAGES, "generator", "generator_image"])
def test_nodes_are_named_by_layer(stage: str, portrait: Exported) -> None:
    graph = portrait.model(stage).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert [
        name for name in names if not name.startswith(("network/", "folded/", "windows/"))
    ] == []
    for node in graph.node:
        assert node.op_type in node.name.rpartition("/")[2]
    values = [name for node in graph.node for name in node.output]
    assert len(set(values)) == len(values)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:  # a layer's weight has its layer's name
        layer = node.name.rpartition("/")[0].replace("/", ".")
        assert any(name.startswith(f"{layer}.") for name in node.input) or "conv" in layer


def test_nothing_tells_where_it_was_made(
    portrait: Exported, any_size: Exported, tiny: TinyModel
) -> None:
    secrets = [str(Path.home()), str(Path.cwd()), str(portrait.folder), str(tiny.vae_file.parent)]
    secrets += ['File "', "site-packages", ".py", "/tmp/", f"/{getpass.getuser()}/"]
    for given in (portrait, any_size):
        for path in (*given.folder.glob("*.onnx"), given.folder / "manifest.json"):
            content = path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert not found, (path.name, found)


@pytest.mark.parametrize("stage", [*STAGES, "generator"])
def test_metadata_says_what_it_is(stage: str, portrait: Exported, tiny: TinyModel) -> None:
    model = portrait.model(stage)
    assert (model.producer_name, model.producer_version) == ("vr-trt", vr_trt.__version__)
    assert model.graph.name == stage
    hashes = {
        f"sha256:{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tiny.generator_file, tiny.vae_file)
    }
    assert {p.key: p.value for p in model.metadata_props} == {
        "model": "tiny",
        "version": vr_trt.__version__,
        "precision": "fp32",
        "profile": "small",
        "pixels": "32x48",
        "window_latents": "6",
        "step_latents": "2",
        **hashes,
    }
