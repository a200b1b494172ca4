"""Recordings joined end to end: pictures and sound go on where the clock starts anew."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from tests.writing import copy_through, packets, times

from vr_trt.runtime.reader import Reader
from vr_trt.runtime.splices import Splices

MakeClip = Callable[..., Path]
BASE = Fraction(1, 90_000)
FRAME = 3600


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("film.ts", {}),
        ("film.vob", {"codec": "mpeg2video", "audio_codec": "mp2", "options": {"bf": "2"}}),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_joined_recordings_follow_each_other(
    tmp_path: Path, make_clip: MakeClip, name: str, choices: dict[str, object], suffix: str
) -> None:
    one = make_clip(tmp_path / f"one_{name}", frames=40, audio=1.6, size=(64, 48), **choices)
    two = tmp_path / name
    two.write_bytes(one.read_bytes() * 2)
    alone, joined = tmp_path / f"alone{suffix}", tmp_path / f"joined{suffix}"
    copy_through(one, alone, crf=30)
    writer = copy_through(two, joined, crf=30)
    shown = times(joined)
    assert len(shown) == 80 + 1
    steps = [float(b - a) for a, b in pairwise(shown)]
    assert steps == pytest.approx([0.04] * 80, abs=2e-3)
    assert not any("damaged" in line or "out of order" in line for line in writer.warnings)
    before, after = packets(alone, "audio"), packets(joined, "audio")
    assert [data for data, _ in after[: len(before)]] == [data for data, _ in before]
    assert 2 * len(before) - 2 <= len(after) <= 2 * len(before)  # an overlap comes once
    assert float(after[-1][1] - before[-1][1]) == pytest.approx(1.6, abs=5e-3)


def placed(*seconds: float) -> list[float]:
    """Where packets of such decoding times are put, a frame each 0.04 s."""
    splices = Splices(BASE, FRAME)
    units = [round(at * 90_000) for at in seconds]
    return [float((at + splices.place(at, FRAME)) * BASE) for at in units]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((10, 10.04, 10.08), (10, 10.04, 10.08)),
        ((10, 10.04, 3, 3.04), (10, 10.04, 10.08, 10.12)),  # another recording
        ((10, 10.04, 90_000, 90_000.04), (10, 10.04, 10.08, 10.12)),
        ((10, 10.04, 70, 70.04), (10, 10.04, 70, 70.04)),  # a pause
        ((10, 10.04, 3, 10.12, 10.16), (10, 10.04, 10.08, 10.12, 10.16)),  # one wrong time
        ((10, 10.02, 10.06), (10, 10.02, 10.06)),  # uneven, and right
        ((10, 10.04, 9.5, 9.54, 3, 3.04), (10, 10.04, 10.08, 10.12, 10.16, 10.2)),
    ],
)
def test_times_go_on(given: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    assert placed(*given) == pytest.approx(wanted, abs=1e-4)


def test_other_pixels_in_the_second_recording_are_said(tmp_path: Path, make_clip: MakeClip) -> None:
    shapes = (Fraction(16, 15), Fraction(64, 45))
    parts = [
        make_clip(tmp_path / f"{number}.ts", frames=12, aspect=shape)
        for number, shape in enumerate(shapes)
    ]
    film = tmp_path / "in.ts"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Reader(film) as reader:
        assert reader.info.sample_aspect == shapes[0]
        assert len(list(reader)) == 24
    assert reader.warnings == [
        "the file's clock starts anew once: its parts follow each other",
        "the shape of pixels changes (16:15, 64:45): the first is kept",
    ]
