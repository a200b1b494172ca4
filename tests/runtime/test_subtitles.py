"""Subtitles of text go into every container, from each of the formats, with their times and styles."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.writing import copy_through

MakeClip = Callable[..., Path]
KEPT = "; an .mkv would keep it as it is"
LINES = [(100, 400, "Grüße <i>aus</i> Ulm"), (600, 300, "zwei\nZeilen"), (1000, 200, "Ende")]


def with_text(path: Path, clip: Path) -> Path:
    """A clip with subtitles beside it, in SubRip's format."""
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        video = after.add_stream_from_template(before.streams.video[0])
        texts = after.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        texts.metadata["language"] = "deu"
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = video
                after.mux(packet)
        for start, length, text in LINES:
            line = av.Packet(text.encode())
            line.stream, line.time_base = texts, Fraction(1, 1000)
            line.pts = line.dts = start
            line.duration = length
            after.mux(line)
    return path


def shown(path: Path) -> list[tuple[int, int, str]]:
    """Start and length in milliseconds of each text of a Matroska file, as it is stored."""
    with av.open(str(path)) as container:
        return [
            (packet.pts or 0, packet.duration or 0, bytes(packet).decode())
            for packet in container.demux(subtitles=0)
            if packet.size
        ]


@pytest.mark.parametrize(
    ("between", "codec"), [(".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt")]
)
def test_text_goes_there_and_back(
    tmp_path: Path, make_clip: MakeClip, between: str, codec: str
) -> None:
    source = with_text(tmp_path / "in.mkv", make_clip(tmp_path / "in.mp4", frames=35))
    assert shown(source) == LINES
    middle, back = tmp_path / f"middle{between}", tmp_path / "out.mkv"
    coder = {"codec": "av1", "crf": 40, "size": (64, 64)} if between == ".webm" else {"crf": 30}
    writer = copy_through(source, middle, **coder)
    assert writer.warnings == [
        f"subtitle stream 1 (srt) does not fit into the output: it becomes {codec}{KEPT}"
    ]
    with av.open(str(middle)) as container:
        stream = container.streams.subtitles[0]
        assert stream.codec_context.name == codec
        assert stream.metadata["language"] == ("ger" if between == ".mov" else "deu")
    if between == ".webm":
        assert [text for *_, text in shown(middle)] == [text for *_, text in LINES]
        return
    copy_through(middle, back, crf=30)
    assert shown(back) == LINES


def test_pictures_of_text_are_left_out(tmp_path: Path, make_clip: MakeClip) -> None:
    clip, source = make_clip(tmp_path / "in.mp4", frames=10), tmp_path / "in.mkv"
    with av.open(str(clip)) as before, av.open(str(source), "w") as after:
        video = after.add_stream_from_template(before.streams.video[0])
        after.add_mux_stream("hdmv_pgs_subtitle", time_base=Fraction(1, 1000))
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = video
                after.mux(packet)
    lines = copy_through(source, tmp_path / "out.mp4", crf=30).warnings
    assert len(lines) == 1 and "(pgssub)" in lines[0] and "left out; an .mkv" in lines[0]


@pytest.mark.parametrize("target", ["out.mkv", "-"])
def test_damaged_text_is_counted_also_on_standard_output(
    tmp_path: Path,
    make_clip: MakeClip,
    capfdbinary: pytest.CaptureFixture[bytes],
    target: str,
) -> None:
    middle, damaged = tmp_path / "middle.mp4", tmp_path / "damaged.mp4"
    copy_through(with_text(tmp_path / "in.mkv", make_clip(tmp_path / "in.mp4")), middle, crf=30)
    with av.open(str(middle)) as before, av.open(str(damaged), "w") as after:
        copies = {s.index: after.add_stream_from_template(s) for s in before.streams}
        for packet in before.demux():
            copy = packet
            if packet.stream.type == "subtitle" and packet.pts == LINES[0][0]:
                copy = av.Packet(b"\0")  # too short to say how long its text is
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            if copy.size:
                copy.stream = copies[packet.stream_index]
                after.mux(copy)
    path = Path("-") if target == "-" else tmp_path / target
    warnings = copy_through(damaged, path, crf=30).warnings
    assert warnings[1:] == ["1 damaged packet of other streams was left out"]
    assert capfdbinary.readouterr().out.startswith(b"\x1aE\xdf\xa3" if target == "-" else b"")
