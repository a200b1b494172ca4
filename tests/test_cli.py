"""The verbs of the command line, in process."""

import json
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video, read_frames

from vr_trt import __version__
from vr_trt.cli import app, exit_code, main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"vr-trt {__version__}\n"


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    names = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    names += [group.name for group in app.registered_groups if group.name]
    assert {"run", "plan", "profiles", "doctor"} <= set(names)
    assert exit_code(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in names:
        assert name in overview
        assert exit_code([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert len(shown.splitlines()) > 4
        if name == "run":  # defaults that are words; in the help's own text rich would drop them
            assert "[default: (as the input)]" in shown


def test_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["profiles"]) == 0
    assert "2160p" in capsys.readouterr().out
    assert exit_code(["profiles", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["name"] == "360p" and rows[0]["window"] == 21


def test_run(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_video(tmp_path / "in.mp4", frames=7, size=(64, 48), audio=True)
    arguments = ["run", str(source), "--profile", "360p", "--model", model, "--preset", "ultrafast"]
    assert exit_code(arguments) == 0
    output = tmp_path / "in.restored.mp4"
    assert len(read_frames(output)) == 7
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{output}: 7 frames, 480x360")
    assert all(line.startswith("note: ") for line in shown.err.splitlines())
    assert exit_code(arguments) == 2  # it exists now
    assert exit_code([*arguments, "--overwrite"]) == 0


def test_run_json(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))
    assert exit_code(["run", str(source), "--profile", "360p", "--model", model, "--json"]) == 0
    shown = capsys.readouterr()
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "done" and events[-1]["frames"] == 30
    assert shown.err == ""


def test_plan(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))
    assert exit_code(["plan", str(source), "--model", model, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["frames"] == 30 and plan["generator_windows"] == 2 and plan["fits"] is True
    assert exit_code(["plan", str(source), "--model", model]) == 0
    assert "960x720" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = exit_code(["doctor", "--json"])
    found = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["numpy"]["ok"] and found["av"]["ok"] and found["onnxruntime"]["ok"]
    assert code == (0 if found["CPU backend"]["ok"] else 3)
    for row in found.values():
        assert row["ok"] or row["remedy"], row
    exit_code(["doctor"])
    assert "onnxruntime" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["rum"], ["run"], ["run", "x", "--crf", "high"], ["run", "x", "--frobnicate"]]
)
@pytest.mark.usefixtures("signals_kept")
def test_usage_errors_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1 and shown.err.startswith("vr-trt: ")
