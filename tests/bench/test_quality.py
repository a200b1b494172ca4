"""The quality gates: quick rows on a small clip, all rows from the committed result."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from vr_trt.bench import quality
from vr_trt.bench.demo_scene import Scene
from vr_trt.bench.quality_bars import BARS, BY_ROW, JUMP
from vr_trt.bench.quality_clip import QualityClip, quality_clip
from vr_trt.bench.quality_joins import at_joins, changes, jump
from vr_trt.bench.quality_network import Folded, folded
from vr_trt.bench.quality_rows import FilmRows, JoinRow, Reference, Row, network_rows
from vr_trt.cli import exit_code
from vr_trt.export.models import find_model_files

COMMITTED = Path(quality.__file__).with_name("results") / "cpu-quality.json"
FILES = find_model_files("nano")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> QualityClip:
    return quality_clip(
        tmp_path_factory.mktemp("clip"), Scene(width=96, height=64, frames=21, seed=3)
    )


@pytest.fixture(scope="module")
def reference(clip: QualityClip) -> Reference:
    return Reference.of(FILES, clip)


@pytest.fixture(scope="module")
def wide() -> Folded:
    return folded(FILES)


@pytest.fixture(scope="module")
def committed() -> Any:
    return json.loads(COMMITTED.read_text())


def test_what_is_done_to_the_network_reaches_its_bars(tmp_path: Path) -> None:
    """A start and two steps; scales come from another clip."""
    clip, other = (
        quality_clip(tmp_path, Scene(width=64, height=64, frames=frames, seed=seed))
        for frames, seed in ((13, 3), (5, 5))
    )
    found = network_rows(FILES, Reference.of(FILES, clip), clip, other, lambda line: None)
    rows = {row.bar.row: row for row in found}
    names = ["folding", "streamed VAE", "cut VAE", "bf16", "fp8 encoder", "fp8 decoder"]
    assert list(rows) == names
    for name, row in rows.items():
        assert row.passed, f"{name}: {row.worst:.1f} dB in the worst frame, {row.bar.least} wanted"


def test_windows_reach_their_bar_and_no_join_shows(
    clip: QualityClip, reference: Reference, wide: Folded
) -> None:
    frames = wide.windowed(3, 1).run(clip.x)  # three windows of a clip of six latents
    row = reference.row("windows", frames)
    assert row.passed, f"{row.worst:.1f} dB, {row.bar.least} wanted"
    own = jump(reference.frames, 3, 1)
    assert jump(frames, 3, 1) == pytest.approx(own, rel=JUMP)


def test_a_damaged_network_falls_below_every_bar(
    clip: QualityClip, reference: Reference, wide: Folded
) -> None:
    """What rows and joins are for: a lost state, a seam, a wrong weight."""
    with torch.no_grad():
        parts = wide.decoder.conv_out.weight, wide.decoder.conv_out.weight.clone()
        parts[0].mul_(1.02)
        damaged = wide.chain().run(clip.x)
        parts[0].copy_(parts[1])
    assert not any(reference.row(bar.row, damaged).passed for bar in BARS if bar.least >= 48)
    stateless = replace(
        wide.chain(),
        decode=lambda z: torch.cat(
            [wide.chain().decode(z[:, :, :2]), wide.chain().decode(z[:, :, 2:])], 2
        ),
    )
    broken = reference.frames.copy()
    broken[0, 0, 4, 2, 3] = np.nan
    assert not reference.row("bf16", broken).passed
    with pytest.raises(AssertionError):  # frames are missing
        reference.row("streamed VAE", stateless.run(clip.x))
    seams = reference.frames.copy()
    seams[:, :, 13:] += 0.3  # a step of light where the second window begins
    assert jump(seams, 6, 2) / jump(reference.frames, 6, 2) > 1 + JUMP


def test_joins_are_the_changes_in_which_two_windows_have_a_part() -> None:
    joins = at_joins(41, 6, 2)  # frames of 11 latents: windows from latent 0 and from 4 on
    into = [frame + 1 for frame in np.flatnonzero(joins)]
    assert into == [*range(13, 25), *range(29, 41)]  # latents 4, 5, 6 and 8, 9, 10
    still = np.zeros((1, 3, 3, 2, 2), np.float32)
    still[:, :, 2] = 1
    assert list(changes(still)) == [0, 127.5]


def test_a_row_passes_by_its_worst_frame_and_beside_another_seed() -> None:
    bar = replace(BY_ROW["fp16"], least=50)
    good = Row(bar=bar, psnr=60, worst=51, other_seed=55)
    assert good.passed
    assert not replace(good, worst=49.9).passed
    assert not replace(good, worst=float("nan")).passed
    assert not replace(good, other_seed=60.0).passed
    join = JoinRow(row="windows", jump=1.05, whole_clip=1.0)
    assert join.passed and not replace(join, jump=1.2).passed
    assert not replace(join, whole_clip=1.2).passed  # the join hides the film's own motion


def test_the_command_fails_with_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(bar=bar, psnr=99, worst=99, other_seed=50) for bar in BARS]
    joins = (JoinRow(row="windows", jump=1.0, whole_clip=1.0),)
    film = FilmRows(rows=tuple(rows[8:]), joins=joins, taken_up_identical=True)
    monkeypatch.setattr(quality, "quality_clip", lambda folder, scene: None)
    monkeypatch.setattr(Reference, "of", lambda files, clip: None)
    monkeypatch.setattr(quality, "network_rows", lambda *given: rows[:3] + rows[5:6] + rows[7:8])
    monkeypatch.setattr(quality, "graph_rows", lambda *given: [rows[3], rows[4], rows[6]])
    monkeypatch.setattr(quality, "film_rows", lambda *given: film)
    out = tmp_path / "quality.json"
    assert exit_code(["bench", "quality", "--out", str(out)]) == 0
    shown = capfd.readouterr().out
    assert all(bar.row in shown for bar in BARS) and "FAILED" not in shown
    assert json.loads(out.read_text())["passed"] is True
    rows[4] = replace(rows[4], worst=BY_ROW["fp16"].least - 1)
    assert exit_code(["bench", "quality", "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["passed"] is False
    assert not quality.all_passed(rows[:-1], film)  # a row is missing


def test_the_committed_result_is_of_these_weights_and_passes(committed: Any) -> None:
    assert committed["weights"] == quality.digests(FILES), (
        f"nano has changed since {COMMITTED.name}: run vr-trt bench quality --out {COMMITTED}"
    )
    assert [row["row"] for row in committed["rows"]] == [bar.row for bar in BARS]
    for found, bar in zip(committed["rows"], BARS, strict=True):
        row = Row(bar=bar, **{name: found[name] for name in ("psnr", "worst", "other_seed")})
        assert row.passed, f"{bar.row}: {found}"
    for found in committed["joins"]:
        join = JoinRow(**{name: found[name] for name in ("row", "jump", "whole_clip")})
        assert join.passed, found
    assert committed["taken_up_identical"] is True and committed["passed"] is True
    assert {join["row"] for join in committed["joins"]} == {"windows", "as it runs", "segments"}


def test_the_committed_table_can_be_shown(committed: Any) -> None:
    console = Console(width=120, record=True, file=StringIO())
    console.print(quality.table(committed))
    shown = console.export_text()
    assert all(bar.row in shown for bar in BARS) and "FAILED" not in shown
