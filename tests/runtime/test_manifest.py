"""What a manifest says, and what is wrong with one."""

import json
from pathlib import Path

import pytest

from vr_trt.errors import UsageError
from vr_trt.runtime.manifest import Asked, make_asked, read_manifest_jobs


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def test_a_list_of_paths(tmp_path: Path) -> None:
    manifest = write(tmp_path / "list.txt", "# films", "a.mkv", "", "/far/b.mov", "scan.png")
    jobs = read_manifest_jobs(manifest, Asked(seed=3), None)
    assert [job.input for job in jobs] == [
        tmp_path / "a.mkv",
        Path("/far/b.mov"),
        tmp_path / "scan.png",
    ]
    assert [str(job.output.name) for job in jobs] == [
        "a.restored.mkv",
        "b.restored.mov",
        "scan.restored.png",
    ]
    assert [job.number for job in jobs] == [0, 1, 2] and jobs[0].asked.seed == 3
    out = [job.output for job in read_manifest_jobs(manifest, Asked(), tmp_path / "out")]
    assert out == [tmp_path / "out" / name for name in ("a.mkv", "b.mov", "scan.png")]


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b.mkv", "a.MP4", "a.restored.mp4", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    jobs = read_manifest_jobs(tmp_path, Asked(), None)
    assert [job.input.name for job in jobs] == ["a.MP4", "b.mkv"]


def test_json_lines_change_what_is_asked(tmp_path: Path) -> None:
    manifest = write(
        tmp_path / "list.jsonl",
        {"input": "a.mkv", "output": "x/y.mkv", "codec": "ffv1", "seed": 7, "crf": 20},
        {"input": "b.mkv", "color": "none"},
    )
    one, two = read_manifest_jobs(manifest, Asked(profile="360p"), None)
    assert one.output == tmp_path / "x/y.mkv"
    assert one.asked == Asked(profile="360p", codec="ffv1", seed=7, crf=20)
    assert two.asked == Asked(profile="360p", color="none")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"input": "a.mkv", "sed": 7}'], "line 1: unknown key 'sed'"),
        (['{"input": "a\\u0000.mkv"}'], "line 1: .* is not the path of a file"),
        (['{"input": "~nobody-is-called-that/a.mkv"}'], "names a user without a home folder"),
        (["# x", '{"input": "a.mkv", "seed": "7"}'], "line 2: seed cannot be '7'"),
        (['{"input": "a.mkv", "seed": true}'], "seed cannot be True"),
        (['{"input": "a.mkv", "color": "sepia"}'], "choose one of wavelet"),
        (['{"output": "a.mkv"}'], 'write an object with an "input"'),
        (["[1]"], 'write an object with an "input"'),
        (['{"input": "a.mkv"'], "line 1"),
        (["# nothing"], "names no file"),
        (
            ['{"input": "a.mkv"}', '{"input": "a.avi", "output": "a.restored.mkv"}'],
            "would both become",
        ),
        (['{"input": "a.mkv", "output": 3}'], "output cannot be 3"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_manifest_jobs(write(tmp_path / "list.jsonl", *lines), Asked(), None)


def test_wrong_choices_are_named() -> None:
    with pytest.raises(UsageError, match="color cannot be 'sepia': choose one of"):
        make_asked(color="sepia")
