"""Engines really built, found again, built anew for a stated reason, and refused before work."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine_graphs import SIZE, add_misbehaving_builder, make_graphs

from vr_trt.engines import build as building
from vr_trt.engines.build import BuildRequest, Outcome, Watch, build_engines
from vr_trt.engines.cache import Canvas, EngineCache
from vr_trt.errors import MemoryBudgetError, ModelError

CANVAS = Canvas(width=SIZE[0], height=SIZE[1], latents=6, step=1)


@pytest.fixture
def request_for(tmp_path: Path) -> BuildRequest:
    """Of two stages on the CPU."""
    return BuildRequest(
        model=str(make_graphs(tmp_path / "graphs")),
        profile="360p",
        canvas=CANVAS,
        backend="onnxruntime",
    )


def build(request: BuildRequest, cache: Path) -> list[Outcome]:
    return build_engines(request, None, cache)


def actions(outcomes: list[Outcome]) -> list[str]:
    return [outcome.action for outcome in outcomes]


def test_tensorrt_rtx_builds_plans_for_ada_and_blackwell(
    request_for: BuildRequest, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    graphs = make_graphs(tmp_path / "half", "fp16")
    request = replace(request_for, backend="tensorrt-rtx", model=str(graphs))
    outcomes = build(request, tmp_path)
    assert [o.stage for o in outcomes] == ["generator", "generator_image"]
    for outcome in outcomes:
        engine = outcome.engine
        content = engine.plan.read_bytes()
        assert b"accelerators={sm89 sm120 }" in content and len(content) > 10_000
        assert engine.spec.targets == (89, 120) and engine.spec.precision == "fp16"
        assert 0 < engine.about.seconds["build"] < engine.about.seconds["all"]
        # The upper bound is no test: a child's peak starts at what its parent held when it forked.
        assert engine.about.peak_bytes > 1e8 and engine.about.estimated_bytes > 1e8
        assert "Engine generation completed" in (engine.folder / "build.log").read_text()
    assert actions(build(request, tmp_path)) == ["found", "found"]
    only = build(replace(request, targets=(120,), stages=("generator",)), tmp_path)
    assert [str(change) for change in only[0].changes] == ["targets [89, 120] -> [120]"]
    assert b"accelerators={sm120 }" in only[0].engine.plan.read_bytes()


def test_an_identical_request_does_nothing(request_for: BuildRequest, tmp_path: Path) -> None:
    built = build(request_for, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = build(request_for, tmp_path)
    assert actions(built) == ["built", "built"] and actions(again) == ["found", "found"]
    assert [o.engine for o in again] == [o.engine for o in built]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_other_weights_are_named(request_for: BuildRequest, tmp_path: Path) -> None:
    build(request_for, tmp_path)
    other = replace(request_for, model=str(make_graphs(tmp_path / "other", seed=1)))
    outcome = build(other, tmp_path)[0]
    assert outcome.action == "built"
    assert [change.field for change in outcome.changes] == ["weights.weights.safetensors", "onnx"]


def test_a_damaged_plan_is_built_again_and_named(request_for: BuildRequest, tmp_path: Path) -> None:
    engine = build(request_for, tmp_path)[0].engine
    with engine.plan.open("r+b") as file:
        file.seek(20)
        file.write(b"?")
    outcome = build(request_for, tmp_path)[0]
    assert outcome.action == "built" and f"{engine.plan} is damaged" in outcome.reason
    assert actions(build(request_for, tmp_path)) == ["found", "found"]


def test_what_does_not_fit_is_refused_before_it_starts(
    request_for: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "available_bytes", lambda: 1 << 20)
    with pytest.raises(
        MemoryBudgetError,
        match=r"generator of tiny in fp32 needs about 200 MiB of memory and 1 MiB are",
    ):
        build(request_for, tmp_path)
    assert list(EngineCache(tmp_path).engines()) == []


def test_a_smaller_precision_that_would_fit_is_named(
    request_for: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_trt.engines import build_onnxruntime

    monkeypatch.setattr(build_onnxruntime, "BASE_BYTES", 0)
    monkeypatch.setattr(building, "available_bytes", lambda: 400)  # 8 x 8 weights in fp32: 640
    with pytest.raises(MemoryBudgetError, match="--precision fp16 would fit"):
        build(request_for, tmp_path)


def test_a_full_disk_is_refused_before_it_starts(
    request_for: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MemoryBudgetError, match="the plan of generator needs .*VR_TRT_CACHE"):
        build(request_for, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda folder: (folder / "weights.bin").write_bytes(b"short"), "weights.bin is damaged"),
        (lambda folder: (folder / "generator.onnx").write_bytes(b"?"), "generator.onnx is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "lacks model, precision"),
        (lambda folder: (folder / "manifest.json").write_text("?"), "cannot read .*manifest.json"),
    ],
)
def test_broken_graphs_are_named(
    request_for: BuildRequest, tmp_path: Path, spoil: object, message: str
) -> None:
    assert callable(spoil)
    spoil(Path(request_for.model))
    with pytest.raises(ModelError, match=message):
        build(request_for, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_another_size_or_precision_than_the_folder_has(
    request_for: BuildRequest, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="64x32 pixels, 6 latents and 1 a step, not 96x32"):
        build(replace(request_for, canvas=replace(CANVAS, width=96)), tmp_path)
    with pytest.raises(ModelError, match="fp32 graphs, not fp16"):
        build(replace(request_for, precision="fp16"), tmp_path)
    with pytest.raises(ModelError, match="no stage encode_image"):
        build(replace(request_for, stages=("encode_image",)), tmp_path)


def test_the_operator_that_is_refused_is_named(request_for: BuildRequest, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    import json

    import onnx

    folder = Path(request_for.model)
    model = onnx.load(folder / "generator.onnx", load_external_data=False)
    model.graph.node[1].op_type = "Multinomial"
    model.graph.node[1].input.pop()
    onnx.save(model, folder / "generator.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    from vr_trt.export.weights_hashes import hash_file

    manifest["sha256"]["generator.onnx"] = hash_file(folder / "generator.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    request = replace(request_for, backend="tensorrt-rtx", stages=("generator",))
    with pytest.raises(ModelError, match=r"Multinomial.*generator.*\(node sum\)"):
        build(request, tmp_path)
    assert EngineCache(tmp_path).store.names() == []


CHILD = """
import sys
from pathlib import Path
from vr_trt.engines.build import BuildRequest, Watch, build_engines
from vr_trt.engines.cache import Canvas
model, cache, parts = sys.argv[1:]
request = BuildRequest(
    model=model, profile="360p", canvas=Canvas(width=64, height=32, latents=6, step=1),
    backend="triton", stages=("generator",), options={"do": "write", "parts": parts},
)
watch = Watch(says=lambda line: print(line, flush=True),
              doing=lambda what, moment: print(moment.doing, flush=True))
print(build_engines(request, watch, Path(cache))[0].action)
"""


def start_child(
    request: BuildRequest, cache: Path, builder: Path, parts: int
) -> "subprocess.Popen[str]":
    path = f"{builder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, request.model, str(cache), str(parts)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_builds_at_once_build_once(request_for: BuildRequest, tmp_path: Path) -> None:
    builder = add_misbehaving_builder(tmp_path / "builder")
    children = [start_child(request_for, tmp_path / "cache", builder, 100) for _ in range(2)]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert sorted(text.split()[-1] for text in said) == ["built", "found"]
    assert sum("another process builds this engine" in text for text in said) == 1
    assert len(list(EngineCache(tmp_path / "cache").engines())) == 1


def test_a_kill_during_a_build_leaves_a_valid_cache(
    request_for: BuildRequest, tmp_path: Path
) -> None:
    builder = add_misbehaving_builder(tmp_path / "builder")
    cache = EngineCache(tmp_path / "cache")
    for wait in (0.0, 0.1, 0.3):
        with start_child(request_for, tmp_path / "cache", builder, 300) as child:
            assert child.stdout is not None
            while not child.stdout.readline().startswith("write"):
                assert child.poll() is None
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
        assert list(cache.engines()) == [] and cache.store.names() == []
        assert len(cache.store.leftovers()) == 1
    with start_child(request_for, tmp_path / "cache", builder, 0) as child:
        lines = child.communicate(timeout=60)[0].splitlines()
        assert lines[-1] == "built" and "generator: heard" in lines  # the builder's note
    # A request with other options: the leftover of the first is not its own to remove.
    assert len(cache.store.leftovers()) == 1 and len(cache.store.names()) == 1


def test_progress_is_heard(request_for: BuildRequest, tmp_path: Path) -> None:
    heard: list[str] = []
    watch = Watch(doing=lambda what, moment: heard.append(f"{what} {moment.doing}"))
    build_engines(replace(request_for, stages=("generator",)), watch, tmp_path)
    assert {"generator copying", "generator loading"} <= set(heard)
