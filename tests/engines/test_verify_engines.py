"""Engines that are whole, damaged, foreign or stale, by name; and which of them are removed."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine_graphs import SIZE, make_graphs

from vr_trt.engines.build import BuildRequest, build_engines
from vr_trt.engines.build_onnxruntime import BUILDER, OnnxRuntimeBuilder
from vr_trt.engines.cache import MANIFEST, Canvas, Engine, EngineCache
from vr_trt.engines.prune import DAY, PruneRule, prune_engines
from vr_trt.engines.verify import Finding, examine
from vr_trt.errors import ModelError

CANVAS = Canvas(width=SIZE[0], height=SIZE[1], latents=6, step=1)


@pytest.fixture
def engines(tmp_path: Path) -> list[Engine]:
    """Of two stages, in the cache `tmp_path`."""
    request = BuildRequest(
        model=str(make_graphs(tmp_path / "model")),
        profile="360p",
        canvas=CANVAS,
        backend="onnxruntime",
    )
    return [outcome.engine for outcome in build_engines(request, None, tmp_path)]


def findings(cache: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(cache)}


def only_bad(cache: Path) -> Finding:
    bad = [finding for finding in examine(cache) if finding.state != "ok"]
    assert len(bad) == 1
    return bad[0]


def rewrite(engine: Engine, **changes: object) -> None:
    path = engine.folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_sound_engines(engines: list[Engine], tmp_path: Path) -> None:
    assert {f.name: f.state for f in examine(tmp_path)} == {e.name: "ok" for e in engines}


@pytest.mark.parametrize("name", ["plan", "weights.bin"])
def test_one_changed_byte_is_damage(engines: list[Engine], tmp_path: Path, name: str) -> None:
    path = engines[0].folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the data may have a second name
    path.write_bytes(content)
    found = only_bad(tmp_path)
    assert found.name == engines[0].name and found.state == "damaged"
    assert f"{path} is damaged or foreign" in found.detail


def test_a_missing_file_is_damage(engines: list[Engine], tmp_path: Path) -> None:
    engines[1].plan.unlink()
    assert "plan is missing" in only_bad(tmp_path).detail


def test_another_engines_folder_is_foreign(engines: list[Engine], tmp_path: Path) -> None:
    shutil.rmtree(engines[1].folder)
    shutil.copytree(engines[0].folder, engines[1].folder)
    found = only_bad(tmp_path)
    assert found.state == "foreign" and engines[0].name in found.detail


def test_a_manifest_that_was_edited_is_foreign(engines: list[Engine], tmp_path: Path) -> None:
    rewrite(engines[0], spec={**engines[0].spec.as_json(), "precision": "fp16"})
    assert only_bad(tmp_path).state == "foreign"
    with pytest.raises(ModelError, match="is foreign"):
        EngineCache(tmp_path).find(engines[0].spec)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_broken_manifest_is_damage(engines: list[Engine], tmp_path: Path, text: str) -> None:
    (engines[0].folder / MANIFEST).write_text(text)
    assert only_bad(tmp_path).state == "damaged"


def test_a_folder_of_something_else_is_foreign(engines: list[Engine], tmp_path: Path) -> None:
    (tmp_path / "engines" / "photos").mkdir()
    assert findings(tmp_path)["photos"].state == "foreign"
    assert len(list(EngineCache(tmp_path).engines())) == 2


def test_stale_by_the_backends_version(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = BUILDER.version()
    monkeypatch.setattr(OnnxRuntimeBuilder, "version", lambda self: "99.0")
    details = {(f.state, f.detail) for f in examine(tmp_path)}
    assert details == {("stale", f"backend_version {old} -> 99.0")}


def test_stale_by_our_recipe_and_by_the_graph(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeBuilder, "recipe", 2)
        assert {f.detail for f in examine(tmp_path)} == {"recipe 1 -> 2"}
    shutil.rmtree(tmp_path / "model")
    make_graphs(tmp_path / "model", seed=1)
    for finding in examine(tmp_path):
        assert finding.state == "stale" and finding.detail.startswith("weights.weights.safetensors")
        assert "; onnx " in finding.detail
    shutil.rmtree(tmp_path / "model")  # then nothing is known of it
    assert {f.state for f in examine(tmp_path)} == {"ok"}


def age(engine: Engine, days: float) -> None:
    """Make it seem to be built and used so long ago."""
    then = time.time() - days * DAY
    made = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(then))
    about = json.loads((engine.folder / MANIFEST).read_text())["about"]
    rewrite(engine, about={**about, "made": made})
    os.utime(engine.folder / MANIFEST, (then, then))


def removed(cache: Path, *, dry_run: bool = False, **rule: Any) -> dict[str, str]:
    removals = prune_engines(PruneRule(**rule), dry_run=dry_run, cache=cache)
    return {removal.name: removal.reason for removal in removals}


def test_without_a_rule_only_what_is_of_no_use_goes(engines: list[Engine], tmp_path: Path) -> None:
    root = tmp_path / "engines"
    assert removed(tmp_path) == {}
    engines[0].plan.write_bytes(b"")
    (root / "photos").mkdir()
    (root / ".gone~01234567").mkdir()
    (tmp_path / "graphs" / ".gone~01234567").mkdir(parents=True)
    expected = {engines[0].name: "damaged"}
    expected[".gone~01234567"] = "left by a process that was killed"
    assert removed(tmp_path, dry_run=True) == expected
    assert engines[0].folder.exists() and (root / "photos").exists()
    assert removed(tmp_path) == expected
    assert {p.name for p in root.iterdir()} == {".locks", "photos", engines[1].name}  # not ours
    assert not (tmp_path / "graphs" / ".gone~01234567").exists()


def test_by_age_and_by_use(engines: list[Engine], tmp_path: Path) -> None:
    age(engines[0], 10)
    assert removed(tmp_path, dry_run=True, older_than_days=11.0) == {}
    assert removed(tmp_path, dry_run=True, older_than_days=9.0) == {
        engines[0].name: "built 10.0 days ago"
    }
    assert removed(tmp_path, dry_run=True, unused_for_days=9.0) == {
        engines[0].name: "not used for 10.0 days"
    }
    engines[0].mark_used()
    assert removed(tmp_path, unused_for_days=9.0) == {}
    assert removed(tmp_path, older_than_days=9.0).keys() == {engines[0].name}
    assert [e.name for e in EngineCache(tmp_path).engines()] == [engines[1].name]


def test_by_size_the_last_used_stay(engines: list[Engine], tmp_path: Path) -> None:
    age(engines[1], 1)
    assert removed(tmp_path, dry_run=True, keep_bytes=10**9) == {}
    assert removed(tmp_path, keep_bytes=engines[0].bytes).keys() == {engines[1].name}
    assert removed(tmp_path, keep_bytes=0).keys() == {engines[0].name}


def test_stale_ones_go_only_if_asked(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntimeBuilder, "recipe", 2)
    assert removed(tmp_path) == {}
    assert set(removed(tmp_path, stale=True).values()) == {"stale: recipe 1 -> 2"}
    assert list(EngineCache(tmp_path).engines()) == []


def test_a_cache_that_is_not_there(tmp_path: Path) -> None:
    assert list(examine(tmp_path / "none")) == [] and removed(tmp_path / "none") == {}
    assert not (tmp_path / "none").exists()
