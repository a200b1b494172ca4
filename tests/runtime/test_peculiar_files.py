"""Files that are unusual in ways of their own, through the command line or the reader and writer."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.video.stream import VideoStream
from tests.fake_model import make_fake_model
from tests.runtime.conftest import write_clip
from tests.writing import copy_through, packets, times

from vr_trt.cli import exit_code
from vr_trt.runtime.counted import counted
from vr_trt.runtime.plan import estimated_frames
from vr_trt.runtime.reader import Reader, probe

MakeClip = Callable[..., Path]
RATE = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


def run(source: Path, target: Path, model: str, *options: str) -> int:
    arguments = ["run", str(source), "-o", str(target), "--profile", "360p", "--model", model]
    return exit_code([*arguments, *options])


LOST = (10, 20)  # packets of sound


def with_ac3(path: Path, clip: Path) -> Path:
    """A clip with a second or so of AC-3 beside it: 32 milliseconds a packet."""
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        video = after.add_stream_from_template(before.streams.video[0])
        stream = after.add_stream("ac3", rate=48000, layout="mono")
        assert isinstance(stream, AudioStream)
        tone = np.sin(np.arange(57600) / 20, dtype=np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 48000, 0
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = video
                after.mux(packet)
        after.mux(stream.encode(sound))
        after.mux(stream.encode(None))
    return path


def test_damaged_sound_does_not_cost_the_film(tmp_path: Path, make_clip: MakeClip) -> None:
    """MP4 looks into AC-3; a packet that it refuses waits in the muxer until a later one comes."""
    whole = with_ac3(tmp_path / "in.mkv", make_clip(tmp_path / "silent.mp4", frames=30))
    damaged = tmp_path / "damaged.mkv"
    with av.open(str(whole)) as before, av.open(str(damaged), "w") as after:
        copies = {s.index: after.add_stream_from_template(s) for s in before.streams}
        number = 0
        for packet in before.demux():
            if not packet.size:
                continue
            sound = packet.stream.type == "audio"
            number += sound
            lost = sound and number in LOST
            copy = av.Packet(bytes(packet.size) if lost else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
            copy.stream = copies[packet.stream_index]
            after.mux(copy)
    assert sum(not any(data) for data, _ in packets(damaged, "audio")) == len(LOST)
    writer = copy_through(damaged, tmp_path / "out.mp4", crf=30)
    assert len(times(tmp_path / "out.mp4")) == 30 + 1
    kept = packets(tmp_path / "out.mp4", "audio")
    assert len(kept) == len(packets(whole, "audio")) - len(LOST)
    assert writer.warnings == [f"{len(LOST)} damaged packets of other streams were left out"]


def test_what_an_edit_hides_is_not_heard_in_mkv(tmp_path: Path, make_clip: MakeClip) -> None:
    """Half a second of sound lies before the film's start, where an edit list hides it."""
    whole, cut = make_clip(tmp_path / "in.mp4", frames=30, audio=1.8), tmp_path / "cut.mp4"
    with av.open(str(whole)) as before, av.open(str(cut), "w") as after:
        copies = {s.index: after.add_stream_from_template(s) for s in before.streams}
        for packet in before.demux():
            if packet.size:
                if packet.stream.type == "audio":
                    assert packet.pts is not None and packet.dts is not None
                    packet.pts, packet.dts = packet.pts - 8000, packet.dts - 8000
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    copy_through(cut, tmp_path / "out.mkv", crf=30)
    copy_through(cut, tmp_path / "out.mp4", crf=30)
    assert float(times(tmp_path / "out.mkv")[0]) < 0.15  # two packets of sound
    hidden = len(packets(cut, "audio")) - len(packets(tmp_path / "out.mkv", "audio"))
    assert hidden == pytest.approx(0.5 * 16000 / 1024, abs=2)
    assert len(packets(tmp_path / "out.mp4", "audio")) == len(packets(cut, "audio"))


def test_a_late_start_is_no_missing_end(tmp_path: Path, make_clip: MakeClip) -> None:
    """Matroska says when a stream ends, not how long it is."""
    late = [5000 + 40 * number for number in range(50)]
    path = make_clip(tmp_path / "late.mkv", pts=late, time_base=Fraction(1, 1000))
    info = probe(path)
    assert info.seconds == pytest.approx(2.0, abs=0.05) and estimated_frames(info) == 50
    with Reader(path, info) as reader:
        assert len(list(reader)) == 50
    assert reader.warnings == []


def test_damaged_pictures_are_counted(tmp_path: Path, make_clip: MakeClip) -> None:
    """A decoder hides what is missing of a picture, and says that something was."""
    path = make_clip(tmp_path / "in.mkv", frames=30, size=(96, 64), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [bytes(p) for p in container.demux(video=0) if p.size][12]
    at = data.index(packet) + len(packet) // 2
    data[at : at + len(packet) // 4] = b"\xff" * (len(packet) // 4)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        damaged = sum(frame.is_corrupt for frame in container.decode(video=0))
    with Reader(path) as reader:
        assert len(list(reader)) == 30
    said = counted(damaged, "damaged frame was", "damaged frames were")
    assert damaged and reader.warnings == [f"{said} restored as they are"]


def busy_film(path: Path) -> Path:
    """Uneven times from five seconds on, B-frames, ten bits, wide pixels, two sounds, a font, chapters."""
    shown = [5000 + at for at in (0, 40, 100, 133, 200, 260, 300, 400, 410, 500, 540, 580)]
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"bf": "3"})
        assert isinstance(video, VideoStream)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = 64, 48, "yuv420p10le"
        context.sample_aspect_ratio = Fraction(4, 3)
        video.time_base = context.time_base = Fraction(1, 1000)
        context.flags |= Flags.frame_duration
        sounds = [output.add_stream(name, rate=48000, layout="mono") for name in ("aac", "flac")]
        for stream, language in zip(sounds, ("eng", "deu"), strict=True):
            stream.metadata["language"] = language
        output.add_attachment("letters.ttf", "application/x-truetype-font", b"no font" * 50)
        output.set_chapters(
            [
                {
                    "id": number,
                    "start": 5300 * number,
                    "end": 5300 + 500 * number,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, title in enumerate(("one", "two"))
            ]
        )
        for number, at in enumerate(shown):
            luma = np.full((48, 64), 300 + 20 * number, np.uint16)
            chroma = np.full((24, 64), 512, np.uint16)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p10le")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for stream in sounds:
            assert isinstance(stream, AudioStream)
            kind = "fltp" if stream.codec_context.name == "aac" else "s16"
            tone = np.sin(np.arange(24000) / 20)[None]
            samples = tone.astype(np.float32) if kind == "fltp" else (9000 * tone).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
            sound.sample_rate, sound.pts = 48000, 5 * 48000
            output.mux(stream.encode(sound))
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_busy_film_comes_through_the_command_line(
    tmp_path: Path, model: str, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = busy_film(tmp_path / "in.mkv"), tmp_path / f"out{suffix}"
    assert run(source, target, model) == 0
    said = capfd.readouterr().err
    given, found = probe(source), probe(target)
    assert (found.pixel.bits, found.sample_aspect) == (10, Fraction(4, 3))
    before, after = times(source)[:-1], times(target)[:-1]
    assert [float(at) for at in after] == pytest.approx([float(at) for at in before], abs=0.001)
    assert given.audio_streams == found.audio_streams == 2
    with av.open(str(target)) as container:
        sounds = [(s.codec_context.name, s.metadata["language"]) for s in container.streams.audio]
        kinds = [stream.type for stream in container.streams]
        chapters = [
            (c["start"] * (c["time_base"] or 0), c["metadata"]) for c in container.chapters()
        ]
    assert sounds == [("aac", "eng"), ("flac", "deu")]
    assert [(float(at), tags["title"]) for at, tags in chapters] == [(0.0, "one"), (5.3, "two")]
    assert kinds.count("attachment") == (suffix == ".mkv")
    assert ("attachment stream" in said) == (suffix == ".mp4")
    for codec in (0, 1):
        with av.open(str(source)) as a, av.open(str(target)) as b:
            both = [[bytes(p) for p in c.demux(audio=codec) if p.size] for c in (a, b)]
        assert both[0] == both[1]


def test_sound_of_old_codecs_comes_through_the_command_line(tmp_path: Path, model: str) -> None:
    source = write_clip(
        tmp_path / "in.wmv", codec="wmv2", frames=12, size=(64, 48), audio=0.6,
        audio_codec="wmav2", audio_bits=64_000,
    )  # fmt: skip
    assert run(source, tmp_path / "out.mp4", model) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(frame.samples for frame in container.decode(audio=0)) > 0.4 * 16000
