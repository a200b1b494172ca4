"""The graphs that ship for every size, fixed to one: the same numbers, and no free size left."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from vr_trt.engines import graphs as graphs_module
from vr_trt.engines.cache import Canvas
from vr_trt.engines.graphs import STAGES, GraphRequest, Graphs, existing_graphs, find_graphs
from vr_trt.errors import ModelError
from vr_trt.export import weights_hashes
from vr_trt.kernels.windows import any_size_tables

NANO = Path(__file__).parents[2] / "engines" / "nano"
CANVAS = Canvas(width=160, height=96, latents=2, step=1)
REQUEST = GraphRequest(model="nano", canvas=CANVAS, profile="360p")
CODERS = [f"{verb}_{half}" for verb in ("encode", "decode") for half in ("fine", "coarse")]
CALLS = [f"{coder}_{call}" for coder in CODERS for call in ("start", "step")]
EVERY = (*CALLS, "encode_image", "decode_image", "generator", "generator_image")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def graphs(cache: Path) -> Graphs:
    assert existing_graphs(REQUEST, cache) is None
    return find_graphs(REQUEST, lambda moment: None, cache)


def run(path: Path, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}
    found: list[NDArray[Any]] = session.run(None, {n: x for n, x in inputs.items() if n in names})
    return found


@pytest.mark.parametrize("stage", EVERY)
def test_fixed_graphs_give_the_same_numbers(graphs: Graphs, stage: str) -> None:
    fixed = graphs.read(stage)
    random = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {}
    for name, sizes in fixed.inputs.items():
        assert sizes is not None and min(sizes) > 0
        inputs[name] = random.standard_normal(sizes).astype(np.float32)
    original = stage
    tables = {}
    if stage.startswith("generator"):
        latents = 1 if stage == "generator_image" else CANVAS.latents
        assert inputs["latent"].shape == (1, 48, latents, 12, 20)
        tables = any_size_tables((latents, 6, 10), 8, 32, "language")
        original = "generator"
    expected = run(NANO / f"{original}.onnx", {**inputs, **tables})
    for found, want in zip(run(fixed.path, inputs), expected, strict=True):
        assert found.shape == want.shape
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_they_are_found_again(graphs: Graphs, cache: Path) -> None:
    assert graphs.is_new and graphs.seconds > 0 and set(graphs.files) == set(EVERY) <= set(STAGES)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = find_graphs(REQUEST, lambda moment: None, cache)
    assert not again.is_new and again == replace(graphs, is_new=False)
    assert existing_graphs(REQUEST, cache) == again
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_equal_requests_give_equal_graphs(graphs: Graphs, tmp_path: Path) -> None:
    again = find_graphs(REQUEST, lambda moment: None, tmp_path)
    assert {s: again.read(s).sha256 for s in EVERY} == {s: graphs.read(s).sha256 for s in EVERY}


def test_each_stage_has_its_networks_weights(graphs: Graphs) -> None:
    assert list(graphs.weights_of("generator_image")) == ["generator.safetensors"]
    assert list(graphs.weights_of("decode_fine_step")) == ["vae.safetensors"]


def test_damage_in_the_cache_is_made_good(tmp_path: Path) -> None:
    first = find_graphs(REQUEST, lambda moment: None, tmp_path)
    first.files["generator"].write_bytes(b"?")
    assert find_graphs(REQUEST, lambda moment: None, tmp_path).is_new
    assert not find_graphs(REQUEST, lambda moment: None, tmp_path).is_new


def test_damage_in_the_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(NANO, tmp_path / "nano")
    (tmp_path / "nano" / "decoder.bin").unlink()
    request = replace(REQUEST, model=str(tmp_path / "nano"))
    with pytest.raises(ModelError, match="decoder.bin is missing"):
        find_graphs(request, lambda moment: None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_no_file_is_read_twice_for_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator's data has gigabytes, and each of its stages asks for them."""
    shutil.copytree(NANO, tmp_path / "nano")
    find_graphs(replace(REQUEST, model=str(tmp_path / "nano")), lambda moment: None, tmp_path)
    read: list[Path] = []
    digest = hashlib.file_digest

    def counting(file: Any, kind: str) -> Any:
        read.append(Path(file.name))
        return digest(file, kind)

    weights_hashes._hash_unchanged.cache_clear()
    monkeypatch.setattr(hashlib, "file_digest", counting)
    found = existing_graphs(replace(REQUEST, model=str(tmp_path / "nano")), tmp_path)
    assert found is not None
    for stage in found.files:
        found.read(stage)
    assert len(read) == len(set(read))
    assert found.files["generator"].with_name("generator.bin") in read


def test_the_exporters_fingerprint_is_of_code_texts_and_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {graphs_module.exporter_fingerprint()}
    monkeypatch.setattr(graphs_module, "version", lambda package: "0")
    found.add(graphs_module.exporter_fingerprint())
    monkeypatch.setattr(graphs_module, "_NOT_TRACING", ("weights", "parity", "text"))
    found.add(graphs_module.exporter_fingerprint())
    monkeypatch.setattr(graphs_module, "_TEXTS", ("embeddings/neg_emb.pt",))
    found.add(graphs_module.exporter_fingerprint())
    assert len(found) == 4


@pytest.mark.slow
def test_another_precision_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    heard: list[str] = []
    canvas = replace(CANVAS, latents=6)  # the profile's
    stages = ("generator", "generator_image")
    request = replace(REQUEST, precision="fp16", stages=stages, canvas=canvas)
    graphs = find_graphs(request, lambda moment: heard.append(moment.doing), tmp_path)
    assert graphs.is_new and graphs.precision == "fp16" and set(graphs.files) == {*request.stages}
    assert "tracing generator" in heard
    assert graphs.read("generator").inputs["noise"] == (1, 48, 6, 12, 20)
    assert not find_graphs(request, lambda moment: None, tmp_path).is_new
