"""A small campaign of the fuzzer, and that it finds what it is for. See tests/fuzz/campaign.py."""

import json
import os
import random
import sys
from pathlib import Path

import pytest
from tests.fuzz import campaign as fuzz
from tests.fuzz.campaign import Worker, campaign, jobs
from tests.fuzz.mutations import MEDIA, TEXT, boxes, mutate
from tests.fuzz.seeds import TEXTS, cut_list, media
from tests.fuzz.worker import outcome

from vr_trt.bench import quality


def test_a_few_hundred_inputs_end_in_frames_or_in_one_line(tmp_path: Path) -> None:
    found = campaign(tmp_path, 1000, {"media": 210, "piped": 42, "whole": 10, "text": 60})
    assert not found.findings, found.findings
    tried = {way: counter.total() for way, counter in found.outcomes.items()}
    texts = dict.fromkeys((make.__name__ for make in TEXTS), 60)
    assert tried == {"media": 210, "piped": 42, "whole": 10, **texts}
    # Most inputs are still read or refused for their content: mutations are no mere noise.
    assert found.outcomes["media"]["read"] > 40
    assert found.outcomes["media"]["DamagedInputError"] > 20


@pytest.mark.parametrize("name", ["another_stream_at_the_end.flv"])
def test_what_was_found_before_stays_mended(name: str) -> None:
    answer = outcome("media", Path(__file__).parent / "found" / name, "")
    assert answer["outcome"] in ("read", "UsageError", "DamagedInputError"), answer


def test_inputs_can_be_made_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one = mutate(bytes(range(256)) * 8, random.Random("7 media 3"), MEDIA)
    assert one == mutate(bytes(range(256)) * 8, random.Random("7 media 3"), MEDIA)
    counts = {"text": 5}
    made = [
        [job.content for job in jobs(tmp_path / name, 7, counts) if job.way == "cut_list"]
        for name in ("a", "b")
    ]
    assert made[0] == made[1] and len(set(made[0])) > 3


def test_every_mutation_changes_files_and_never_fails(tmp_path: Path) -> None:
    files = [path.read_bytes() for path in media(tmp_path) if path.suffix in (".mp4", ".mkv")]
    for mutation in MEDIA:
        changed = 0
        for number, data in enumerate(files * 5):
            changed += mutation(data, random.Random(number)) != data
        assert changed > len(files) * 3, mutation.__name__
        mutation(b"x", random.Random(1))
    text = cut_list(tmp_path).read_bytes()
    for mutation in TEXT:
        assert any(mutation(text, random.Random(n)) != text for n in range(5)), mutation.__name__


def test_boxes_are_found(tmp_path: Path) -> None:
    path = next(path for path in media(tmp_path) if path.name == "h264.mp4")
    names = [name for _, name in boxes(path.read_bytes())]
    assert {b"moov", b"trak", b"stts", b"stco", b"mdat", b"stsd"} <= set(names)


@pytest.mark.parametrize(
    ("does", "found"),
    [
        ("os.kill(os.getpid(), 11)", "crash"),
        ("time.sleep(60)", "hang"),
        ("print(json.dumps({'outcome': 'read', 'said': ''}), flush=True)", "read"),
    ],
)
def test_crashes_and_hangs_are_found(
    does: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies is replaced: the next input is asked of a new one."""
    monkeypatch.setattr(fuzz, "USUAL_SECONDS", 2.0)
    code = f"import json, os, sys, time\nfor line in sys.stdin:\n    {does}"
    worker = Worker([sys.executable, "-c", code])
    try:
        assert [worker.ask("media", tmp_path)["outcome"] for _ in range(2)] == [found, found]
    finally:
        worker.close()


def test_what_is_no_refusal_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.cuts"
    path.write_text("12\n")
    assert outcome("cut_list", path, "")["outcome"] == "read"
    path.write_bytes(b"\xff\xfe")
    assert outcome("cut_list", path, "")["outcome"] == "UsageError"
    monkeypatch.setattr(Path, "read_text", lambda self, **given: 1 / 0)
    answer = outcome("cut_list", path, "")
    assert answer["outcome"] == "wrong" and "ZeroDivisionError" in answer["said"]


def test_the_committed_campaign_found_nothing() -> None:
    result = json.loads((Path(quality.__file__).parent / "results" / "cpu-fuzz.json").read_text())
    assert result["findings"] == [] and result["inputs"] > 15_000
    assert os.sep not in result["command"]
