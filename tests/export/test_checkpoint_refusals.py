"""Everything that is no checkpoint is refused in one line that names the file."""

import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoint_files import FORMS, SMALL, save_zip, written

from vr_trt.errors import ModelError
from vr_trt.export.checkpoint import (
    load_generator_weights,
    open_checkpoint,
)
from vr_trt.export.config import (
    GENERATOR_NANO,
    VAE_NANO,
)
from vr_trt.export.keys import expected_generator
from vr_trt.export.random_weights import random_checkpoint

forms = pytest.mark.parametrize("form", FORMS)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        dict(open_checkpoint(path))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


class Malice:
    """Unpickled without care, this leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_pickle_that_wants_more_is_refused_and_not_executed(form: str, tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "executed"
    content: dict[str, Any] = {"a.weight": torch.ones(2), "evil": Malice(target)}
    if form == "plain":
        path.write_bytes(pickle.dumps(content["evil"], protocol=2))
    else:
        FORMS[form](content, path)
    message = refusal(path)
    assert f"{os.system.__module__}.system" in message and "nothing of it was executed" in message
    assert not target.exists()
    torch.load(path, weights_only=False) if form != "plain" else pickle.loads(path.read_bytes())
    assert target.exists(), "the file was harmless, so this test shows nothing"


def test_a_newer_plain_pickle_is_refused_without_bad_advice(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Malice(target), protocol=4))
    assert "weights_only" not in refusal(path)
    assert not target.exists()


def test_a_foreign_class_is_named(tmp_path: Path) -> None:
    save_zip({"a": zipfile.ZipInfo("x")}, tmp_path / "class.pth")
    assert "zipfile.ZipInfo" in refusal(tmp_path / "class.pth")


@forms
def test_truncation_anywhere_is_refused(form: str, tmp_path: Path) -> None:
    whole = written(form, tmp_path).read_bytes()
    path = tmp_path / "cut.bin"
    for length in sorted({0, 1, 8, 9, 16, *range(0, len(whole), 41), len(whole) - 1}):
        path.write_bytes(whole[:length])
        assert "weights pull" in refusal(path), length


def test_truncated_safetensors_says_so(tmp_path: Path) -> None:
    path = random_checkpoint(VAE_NANO, tmp_path / "vae.safetensors")
    os.truncate(path, path.stat().st_size // 2)
    assert "is truncated" in refusal(path)


def test_a_file_that_shrinks_while_open_is_refused(tmp_path: Path) -> None:
    path = written("safetensors", tmp_path)
    checkpoint = open_checkpoint(path)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(ModelError, match="ended while"):
        dict(checkpoint)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_bytes_changed_at_random_never_escape_as_another_error(form: str, tmp_path: Path) -> None:
    whole = written(form, tmp_path).read_bytes()
    path, draw = tmp_path / "changed.bin", random.Random(3)
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 3, 10))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            dict(open_checkpoint(path))
        except ModelError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


FOREIGN = {
    "text.pth": b"these are not the weights you are looking for\n",
    "page.safetensors": b"<!doctype html><title>404</title>" * 20,
    "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
    "picture.pt": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "zeros.pth": bytes(4096),
    "brace.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "list.pth": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "brace.safetensors"])
def test_foreign_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FOREIGN[name])
    assert "weights pull" in refusal(tmp_path / name)


def test_an_empty_safetensors_lacks_every_key(tmp_path: Path) -> None:
    path = tmp_path / "brace.safetensors"
    path.write_bytes(FOREIGN[path.name])
    assert len(open_checkpoint(path)) == 0
    with pytest.raises(ModelError, match=f"{len(expected_generator(GENERATOR_NANO))} missing"):
        load_generator_weights(path, GENERATOR_NANO)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize("names", [["readme.txt"], ["a/data.pkl", "b/data.pkl"], []])
def test_a_zip_that_is_no_checkpoint_is_refused(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "archive.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "something")
    assert "no checkpoint" in refusal(path) or "neither" in refusal(path)


def repacked(path: Path, compression: int, reverse: bool, drop: str = "") -> Path:
    target = path.with_name("repacked.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        members = [info for info in old.infolist() if not drop or drop not in info.filename]
        for info in reversed(members) if reverse else members:
            new.writestr(info.filename, old.read(info.filename))
    return target


def test_an_archive_packed_again_is_refused(tmp_path: Path) -> None:
    path = repacked(written("zip", tmp_path), zipfile.ZIP_STORED, reverse=True)
    assert "packed again" in refusal(path)


def test_compressed_and_incomplete_archives_are_refused(tmp_path: Path) -> None:
    path = written("zip", tmp_path)
    assert "compressed" in refusal(repacked(path, zipfile.ZIP_DEFLATED, reverse=False))
    assert "weights pull" in refusal(repacked(path, zipfile.ZIP_STORED, False, drop="data/1"))


HEADERS: dict[str, Any] = {
    "beyond": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}},
    "short": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "shape": {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}},
    "negative": {"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}},
    "backwards": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "truth": {"a": {"dtype": "F32", "shape": [True, 4], "data_offsets": [0, 16]}},
    "type": {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 16]}},
    "entry": {"a": 3},
    "list": [1, 2],
    "overlap": {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    },
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_lying_header_is_refused(name: str, tmp_path: Path) -> None:
    text = json.dumps(HEADERS[name]).encode()
    text = text if text.startswith(b"{") else b'{"a":' + text + b"}"
    path = tmp_path / "lying.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    refusal(path)


@pytest.mark.parametrize(
    "start",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (200).to_bytes(8, "little") + b'{"a"',
        (6).to_bytes(8, "little") + b'{"a": ',
        (30).to_bytes(8, "little") + b'{"a":null,"a":null}' + b" " * 11,
        (70_000).to_bytes(8, "little") + b'{"a":' + b"[" * 69_995,
    ],
)
def test_a_header_that_is_none_is_refused(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "header.safetensors"
    path.write_bytes(start)
    refusal(path)


@pytest.mark.parametrize("content", [{"net": SMALL}, {"model": SMALL, "step": 3}, [1.0], 7])
def test_any_other_structure_is_refused(content: Any, tmp_path: Path) -> None:
    save_zip(content, tmp_path / "odd.pth")
    assert "state dict" in refusal(tmp_path / "odd.pth")
