"""The list of weights, where they lie, and their hashes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from vr_trt.errors import ModelError, UsageError
from vr_trt.export import weights, weights_hashes
from vr_trt.export.models import find_model_files
from vr_trt.export.weights_table import SHIPPED, find, read_table, table, wanted

POSITIVE = SHIPPED / "pos_emb.pt"  # a true file of the list, small enough to be copied about
ROW = (
    '[[file]]\nname="a"\nmodel="m"\nkind="vae"\nrepository="r/a"\nfilename="a.pth"\ngigabytes=1.0\n'
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's caches is read or written, and the package ships no texts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VR_TRT_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "nothing shipped")


def test_the_list_is_that_of_the_publishers() -> None:
    assert len(table()) == 13
    hashed = {file.filename for file in table() if file.sha256}
    assert hashed == {
        "seedvr2_ema_3b_fp16.safetensors",
        "seedvr2_ema_7b_fp16.safetensors",
        "seedvr2_ema_7b_sharp_fp16.safetensors",
        "ema_vae_fp16.safetensors",
        "seedvr2_ema_3b_fp8_e4m3fn.safetensors",
        "pos_emb.pt",
        "neg_emb.pt",
    }


def test_shipped_texts_are_the_published_ones() -> None:
    for name in ("text-positive", "text-negative"):
        file = find(name)
        assert weights_hashes.hash_file(SHIPPED / file.filename) == file.sha256


def test_a_model_means_its_generator_and_the_vae() -> None:
    assert [file.name for file in wanted("seedvr2-7b-sharp")] == [
        "seedvr2-7b-sharp-fp16",
        "vae-fp16",
    ]
    assert [file.name for file in wanted("seedvr2_ema_3b.pth")] == ["seedvr2-3b-fp32"]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match=r"'seedvr3'.*seedvr2-3b-fp16") as caught:
        find("seedvr3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (ROW + 'license="x"\n', "unknown keys.*license"),
        (ROW + "[other]\n", "unknown tables.*other"),
        (ROW.replace('model="m"\n', ""), "missing keys.*model"),
        (ROW.replace("vae", "cat"), "kind 'cat'"),
        (ROW + 'sha256="ABC"\n', "no sha256"),
        (ROW + ROW, "two files of one name"),
    ],
)
def test_a_wrong_list_is_refused(text: str, fault: str) -> None:
    assert read_table(ROW)[0].sha256 is None
    with pytest.raises(ValueError, match=fault):
        read_table(text)


# Folders and hashes


def test_the_folder_is_chosen_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.weights_folder() == tmp_path / "cache/vr-trt/weights"
    monkeypatch.setenv("VR_TRT_WEIGHTS", str(tmp_path / "own"))
    assert weights.weights_folder() == tmp_path / "own"
    assert weights.weights_folder(tmp_path / "given") == tmp_path / "given"


def test_states_follow_what_happens_to_a_file(tmp_path: Path) -> None:
    def state() -> str:
        return next(
            x.state for x in weights.local_files(tmp_path) if x.file.name == "text-positive"
        )

    path = tmp_path / "pos_emb.pt"
    assert state() == "absent"
    (tmp_path / "pos_emb.pt.abc.part").write_bytes(b"half")
    assert state() == "partial"
    shutil.copy(POSITIVE, path)
    assert state() == "present"
    weights.verify("text-positive", tmp_path)
    assert state() == "verified"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert state() == "present"
    with pytest.raises(ModelError, match="damaged.*weights pull text-positive"):
        weights.verify(str(path))
    assert state() == "damaged"


def test_a_required_file_is_hashed_once_for_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = weights_hashes.hash_file

    def counting(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(weights, "hash_file", counting)
    path = tmp_path / "pos_emb.pt"
    shutil.copy(POSITIVE, path)
    assert weights.require("text-positive", tmp_path) == path
    assert weights.require("text-positive", tmp_path) == path
    assert len(hashed) == 1
    os.utime(path, ns=(1, 1))
    weights.require("text-positive", tmp_path)
    assert len(hashed) == 2
    path.write_bytes(b"\0" * path.stat().st_size)
    for _ in range(2):
        with pytest.raises(ModelError, match="damaged"):
            weights.require("text-positive", tmp_path)
    assert len(hashed) == 3


def test_what_was_hashed_is_not_read_again_by_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "generator.safetensors"
    path.write_bytes(b"weights")
    files = replace(find_model_files("nano"), generator_file=path)
    whole = files.sha256()
    assert list(whole) == ["generator.safetensors", "vae.safetensors"]
    weights_hashes.remember_hash(path, "1" * 64)
    assert files.sha256() == whole | {path.name: "1" * 64}
    path.write_bytes(b"others!")
    os.utime(path, ns=(1, 1))
    assert files.sha256()[path.name] not in (whole[path.name], "1" * 64)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Records of what was exported name them: one hash would be lost, and a change not noticed."""
    with pytest.raises(UsageError, match="both called model.safetensors"):
        find_model_files("nano", tmp_path / "a/model.safetensors", tmp_path / "b/model.safetensors")


def test_an_absent_required_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vr-trt weights pull seedvr2-3b-fp16"):
        weights.require("seedvr2-3b-fp16", tmp_path)


def test_the_first_copy_decides_where_no_hash_is_published(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder, content in ((first, b"first"), (second, b"second")):
        folder.mkdir()
        (folder / "ema_vae.pth").write_bytes(content)
    weights.require("vae-fp32", first)
    with pytest.raises(ModelError, match="recorded at the first download"):
        weights.require("vae-fp32", second)
    assert weights.require("vae-fp32", first) == first / "ema_vae.pth"


def test_a_damaged_record_says_which_file(tmp_path: Path) -> None:
    weights_hashes.hashes_file().parent.mkdir(parents=True)
    shutil.copy(POSITIVE, tmp_path)
    for content in ("{", "[]", '{"files": {}}'):
        weights_hashes.hashes_file().write_text(content)
        with pytest.raises(ModelError, match=r"hashes\.json.*delete it"):
            weights.local_files(tmp_path)


def test_hashes_of_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "ema_vae.pth"
    path.write_bytes(b"x")
    weights_hashes.remember_hash(path, "1" * 64)
    path.rename(tmp_path / "moved")
    weights_hashes.remember_hash(tmp_path / "moved", "1" * 64)
    assert str(path) not in weights_hashes.hashes_file().read_text()
