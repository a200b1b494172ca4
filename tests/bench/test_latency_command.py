"""The command from end to end, with tiny networks and a tiny adapter, in true processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video

from vr_trt.bench.adapter import open_adapter
from vr_trt.cli import exit_code
from vr_trt.errors import UsageError

ADAPTER = """
import helper

def load():
    helper.loaded = True

def restore(frames):
    assert helper.loaded
    return {result}
"""


def make_adapter(folder: Path, result: str) -> Path:
    folder.mkdir()
    (folder / "adapter.py").write_text(ADAPTER.format(result=result))
    (folder / "helper.py").write_text("loaded = False\n")  # what it needs may lie beside it
    return folder


def test_a_run_beside_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_fake_model(tmp_path / "model")
    clip = make_video(tmp_path / "clip.mp4", frames=9, size=(64, 36), audio=True)
    good = make_adapter(tmp_path / "good", "255 - frames")
    bad = make_adapter(tmp_path / "bad", "frames[:, ::2]")
    out, drawn = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--model", str(model), "--clip", str(clip), "--seconds", "1"]
    options += ["--against", str(good), "--against", str(bad)]
    files = ["--out", str(out), "--plot", str(drawn)]
    assert exit_code(["bench", "latency", *options, *files]) == 0
    document: dict[str, Any] = json.loads(out.read_text())
    check = document["checks"]["360p"]
    assert check["state"] == "not checked" and "none of the models" in check["why"]
    rows = {row["way"]: row for row in document["rows"]}
    assert "must keep number and size" in rows["bad"]["failed"]
    for way in ("vr-trt", "good"):
        row = rows[way]
        assert row["frames"] == 9 and row["processes"] >= 3
        assert row["fps"] == pytest.approx(9 / row["steady_seconds"], rel=0.5)
        assert 0 < row["cold_seconds"] < 60 and row["peak_host_mib"] > 30
        assert row["stages"]["write"]["calls"] == 10
        assert 0 < row["frame_seconds"]["p50"] <= row["steady_seconds"] * 2
    assert rows["vr-trt"]["stages"]["generator"]["calls"] == 1
    shown = capsys.readouterr()
    assert "NOT CHECKED" in shown.out and "frames/s" in shown.err
    assert drawn.stat().st_size > 10_000
    assert str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no adapter.py"), ("def load(): pass", r"has no function restore\(\)")],
)
def test_folders_that_hold_no_adapter(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "adapter.py").write_text(content)
    with pytest.raises(UsageError, match=message):
        open_adapter(tmp_path)


def test_a_target_that_cannot_be_written_is_known_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["bench", "latency", "--out", str(tmp_path / "no" / "out.json")]) == 2
    assert "is not a directory" in capsys.readouterr().err
