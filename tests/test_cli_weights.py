"""`vr-trt weights`: what it prints and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vr_trt.cli_weights import app
from vr_trt.errors import ModelError
from vr_trt.export import weights
from vr_trt.export.weights_table import SHIPPED, table


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VR_TRT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    (tmp_path / "weights").mkdir()


def run(*arguments: str) -> str:
    """What the command prints on stdout; its errors come through as they are."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("verb", ["pull", "verify", "list"])
def test_every_verb_has_help(verb: str) -> None:
    text = re.sub(r"[\s│]+", " ", run(verb, "--help"))
    assert "--folder" in text and "$VR_TRT_WEIGHTS, else ~/.cache/vr-trt/weights" in text


def test_list_names_every_file_and_its_state(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "pos_emb.pt", tmp_path / "weights")
    run("verify", "text-positive")
    printed = run("list")
    for file in table():
        assert re.search(rf"{file.name} .*(absent|present|verified)", printed)
    assert re.search(r"text-positive .*verified", printed)
    assert re.search(r"seedvr2-3b-fp16 .*6\.8 GB.*published.*absent", printed)


def test_list_as_json_is_complete(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "pos_emb.pt", tmp_path / "weights")
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows.keys() == {file.name for file in table()}
    assert rows["text-positive"]["path"] == str(tmp_path / "weights/pos_emb.pt")
    assert rows["text-positive"]["state"] == "present"
    assert rows["seedvr2-7b-fp32"]["sha256"] is None and rows["seedvr2-7b-fp32"]["path"] is None


def test_verify_without_names_takes_what_is_here() -> None:
    lines = run("verify").splitlines()
    assert [line.split()[0] for line in lines] == ["verified", "verified"]
    assert lines[0].endswith(table()[7].sha256 or "nothing")


def test_verify_takes_a_model_as_pull_does() -> None:
    result = CliRunner().invoke(app, ["verify", "seedvr2-3b"])
    assert isinstance(result.exception, ModelError)
    absent = [line.split()[-1] for line in result.output.splitlines() if "absent" in line]
    assert absent == ["seedvr2-3b-fp16", "vae-fp16"]


def test_verify_reports_all_and_fails_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "weights/pos_emb.pt").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"pos_emb\.pt is damaged"):
        run("verify", "text-positive", "text-negative", "vae-fp16")
    result = CliRunner().invoke(app, ["verify", "text-positive", "text-negative", "vae-fp16"])
    assert "verified" in result.stdout and "neg_emb.pt" in result.stdout
    assert result.stderr.count("damaged or absent") == 2


def test_pull_of_a_model_takes_its_files_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []

    def fake(name: str, folder: Path | None) -> Path:
        pulled.append(name)
        return tmp_path / name

    monkeypatch.setattr(weights, "pull", fake)
    printed = run("pull", "seedvr2-3b", "vae-fp16", "seedvr2-7b")
    assert pulled == ["seedvr2-3b-fp16", "vae-fp16", "seedvr2-7b-fp16"]
    assert printed.splitlines() == [str(tmp_path / name) for name in pulled]


def test_pull_of_nothing_known_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "pull", lambda *_: pytest.fail("something was fetched"))
    with pytest.raises(ModelError, match="'nonsense'"):
        run("pull", "seedvr2-3b", "nonsense")
