"""A VAE cut by resolution: from the profile to the exporter, the engines and their manifests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine_graphs import make_graphs

from vr_trt.cli import exit_code
from vr_trt.engines import export_process
from vr_trt.engines.build import BuildRequest, build_engines
from vr_trt.engines.cache import Canvas, Engine
from vr_trt.engines.export_process import Export
from vr_trt.engines.graphs import CUTS, WHOLE, GraphRequest, find_graphs, is_cut
from vr_trt.engines.profiles import load_profiles
from vr_trt.errors import ModelError

CANVAS = Canvas(width=64, height=32, latents=6, step=1)
REQUEST = GraphRequest(model="seedvr2-3b", canvas=CANVAS, profile="1080p")


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Export]:
    """An exporter that writes a manifest of the stages it was asked for, and what it was asked."""
    asked: list[Export] = []

    def export(wanted: Export, folder: Path, watch: object) -> None:
        asked.append(wanted)
        stages = {stage: "a.onnx" for stage in (CUTS if wanted.cut else WHOLE)}
        manifest = {"model": "m", "precision": "fp16", "stages": stages, "sha256": {}}
        shape = {"width": 64, "height": 32, "latents": 6, "step": 1}
        (folder / "manifest.json").write_text(
            json.dumps(manifest | {"shape": shape, "weights": {"a": "b"}})
        )

    monkeypatch.setattr(export_process, "export_in_process", export)
    monkeypatch.setattr(export_process, "weights_hashes", lambda wanted: {"a": "b"})
    return asked


def test_profiles_are_cut_from_1080p_on() -> None:
    cut = {name for name, profile in load_profiles().items() if profile.cut}
    assert cut == {"1080p", "1440p", "2160p"}


@pytest.mark.parametrize("cut", [False, True])
def test_the_exporter_is_told(exported: list[Export], tmp_path: Path, cut: bool) -> None:
    graphs = find_graphs(replace(REQUEST, default_cut=cut), lambda moment: None, tmp_path)
    assert [wanted.cut for wanted in exported] == [cut] and graphs.cut is cut
    assert set(graphs.files) == {*(CUTS if cut else WHOLE)}
    arguments = exported[0].arguments(tmp_path)
    assert ("--cut" in arguments, "--whole" in arguments) == (cut, not cut)


def test_cut_and_whole_graphs_lie_apart(exported: list[Export], tmp_path: Path) -> None:
    """What is asked for goes before what the profile says."""
    for cut in (False, True, False):
        find_graphs(replace(REQUEST, cut=cut, default_cut=True), lambda moment: None, tmp_path)
    assert [wanted.cut for wanted in exported] == [False, True]
    assert len(list((tmp_path / "graphs").glob("seedvr2-3b-*"))) == 2


@pytest.mark.parametrize(("cut", "stage"), [(True, "decode_step"), (False, "encode_fine_start")])
def test_a_stage_of_the_other_kind_is_refused_before_work(
    exported: list[Export], tmp_path: Path, cut: bool, stage: str
) -> None:
    wanted = replace(REQUEST, default_cut=cut, stages=("generator", stage))
    with pytest.raises(
        ModelError, match=f"{stage} is no stage .*give --{'whole' if cut else 'cut'}"
    ):
        find_graphs(wanted, lambda moment: None, tmp_path)
    assert not exported and not list(tmp_path.iterdir())


def folder_of(tmp_path: Path, stages: list[str]) -> str:
    """A model's folder whose graphs go by other names."""
    folder = make_graphs(tmp_path / "graphs")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["stages"] = dict.fromkeys(stages, "generator.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def test_a_folder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    asked = replace(REQUEST, model=folder_of(tmp_path, [*CUTS]), precision="fp32")
    assert find_graphs(asked, lambda moment: None, tmp_path).cut  # whatever the profile says
    assert find_graphs(replace(asked, cut=True), lambda moment: None, tmp_path).cut
    with pytest.raises(ModelError, match="holds a VAE cut by resolution: .* --whole"):
        find_graphs(replace(asked, cut=False), lambda moment: None, tmp_path)


def test_a_folder_without_a_vae_is_neither(tmp_path: Path) -> None:
    asked = replace(REQUEST, model=folder_of(tmp_path, ["generator"]), precision="fp32", cut=True)
    assert list(find_graphs(asked, lambda moment: None, tmp_path).files) == ["generator"]


def test_a_cut_stage_is_built_and_its_manifest_says_so(tmp_path: Path) -> None:
    request = BuildRequest(
        model=folder_of(tmp_path, ["decode_fine_step", "generator"]),
        profile="1080p",
        canvas=CANVAS,
        backend="onnxruntime",
    )
    built = build_engines(request, None, tmp_path / "cache")
    assert [outcome.stage for outcome in built] == ["generator", "decode_fine_step"]
    for outcome in built:
        assert Engine.read(outcome.engine.folder).about.cut
    assert len({outcome.engine.spec.digest for outcome in built}) == 2  # of one graph


def test_is_cut() -> None:
    assert is_cut(["generator", "encode_coarse_start"]) and not is_cut([*WHOLE, "generator"])


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        (["--profile", "1080p"], True),
        (["--profile", "720p"], False),
        (["--profile", "1080p", "--whole"], False),
        (["--profile", "360p", "--cut"], True),
        (["--profile", "any"], False),
        (["--profile", "any", "--cut"], True),
    ],
)
def test_export_follows_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], cut: bool
) -> None:
    from vr_trt.export import export_model

    asked: list[export_model.ExportPlan] = []
    monkeypatch.setattr(export_model, "export_model", lambda plan, out, said: asked.append(plan))
    assert exit_code(["export", "--model", "nano", "--out", str(tmp_path / "out"), *options]) == 0
    assert [plan.cut for plan in asked] == [cut]
