from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.planes import Planes
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.writer import Writer, check_output

MakeClip = Callable[..., Path]
MakePicture = Callable[[int, int, int, str], Planes]


from tests.writing import copy_through, flat_planes, nothing_left, one_png, packets, spec, times


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_lossless_video_comes_back_code_for_code(
    tmp_path: Path, make_clip: MakeClip, make_picture: MakePicture, suffix: str, pix_fmt: str
) -> None:
    source = make_clip(tmp_path / "in.nut", codec="rawvideo", pix_fmt=pix_fmt, size=(34, 20))
    info = probe(source)
    target = tmp_path / f"out{suffix}"
    with Writer(spec(target, info), info) as writer:
        for number in range(5):
            planes = make_picture(number, 34, 20, pix_fmt)
            writer.write(Frame(planes, number, 1))
    with Reader(target) as reader:
        for number, frame in enumerate(reader):
            for plane, stored in zip(
                frame.planes, make_picture(number, 34, 20, pix_fmt), strict=True
            ):
                # x264's crf 0 loses nothing in 8 bits and a little in 10
                tolerance = 0 if pix_fmt == "yuv420p" else 8
                assert np.abs(plane.astype(int) - stored).max() <= tolerance
    assert number == 4


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (2, 2), (34, 21)])
def test_any_size_is_written_without_cropping(
    tmp_path: Path, make_clip: MakeClip, size: tuple[int, int]
) -> None:
    source = make_clip(tmp_path / "in.nut", codec="rawvideo", size=size, frames=2)
    copy_through(source, tmp_path / "out.mp4")
    out = probe(tmp_path / "out.mp4")
    assert (out.width, out.height) == size
    assert out.pixel.chroma == ((2, 2) if size == (2, 2) else (1, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("came_as", [".mp4", ".mkv", ".ts"])
def test_variable_times_and_the_last_length_are_kept(
    tmp_path: Path, make_clip: MakeClip, came_as: str, suffix: str
) -> None:
    source = make_clip(
        tmp_path / f"in{came_as}",
        pts=[0, 40, 100, 133, 200, 260, 300, 400, 410, 500],
        time_base=Fraction(1, 1000),
        rate=25,
    )
    copy_through(source, tmp_path / f"out{suffix}")
    expected, found = times(source), times(tmp_path / f"out{suffix}")
    start = expected[0] if came_as == ".ts" else 0  # a running clock is set to zero
    tolerance = 0.001 if suffix == ".mkv" else 1e-6
    assert [float(at) for at in found] == pytest.approx(
        [float(at - start) for at in expected], abs=tolerance
    )


@pytest.mark.parametrize("came_as", [".mp4", ".mkv"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_audio_is_copied_packet_by_packet_and_stays_in_step(
    tmp_path: Path, make_clip: MakeClip, came_as: str, suffix: str
) -> None:
    source = make_clip(tmp_path / f"in{came_as}", frames=30, audio=1.3)
    copy_through(source, tmp_path / f"out{suffix}")
    given, found = packets(source, "audio"), packets(tmp_path / f"out{suffix}", "audio")
    assert [data for data, _ in found] == [data for data, _ in given]
    first_frames = [float(times(path)[0]) for path in (source, tmp_path / f"out{suffix}")]
    for (_, before), (_, after) in zip(given, found, strict=True):
        assert after - first_frames[1] == pytest.approx(before - first_frames[0], abs=0.002)


def test_sound_lies_between_the_pictures_it_belongs_to(tmp_path: Path, make_clip: MakeClip) -> None:
    # longer than the ten seconds for which FFmpeg itself holds packets back to sort them
    source = make_clip(tmp_path / "in.mp4", frames=120, rate=4, audio=30)
    copy_through(source, tmp_path / "out.mkv", crf=30)
    with av.open(str(tmp_path / "out.mkv")) as container:
        at = {"video": 0.0, "audio": 0.0}
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                at[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(at["video"] - at["audio"]) < 3


def test_audio_can_be_left_out(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip(tmp_path / "in.mp4", audio=0.5)
    copy_through(source, tmp_path / "out.mp4", copy_audio=False)
    assert probe(tmp_path / "out.mp4").audio_streams == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (9, 16, 9, 1), (5, 6, 5, 2)])
def test_colour_aspect_and_metadata_are_tagged(
    tmp_path: Path, make_clip: MakeClip, suffix: str, tags: tuple[int, int, int, int]
) -> None:
    source = make_clip(
        tmp_path / "in.mkv",
        tags=tags,
        aspect=Fraction(4, 3),
        metadata={"title": "A title", "my_own": "kept"},
    )
    copy_through(source, tmp_path / f"out{suffix}")
    before, after = probe(source), probe(tmp_path / f"out{suffix}")
    assert after.pixel == before.pixel
    assert after.sample_aspect == Fraction(4, 3)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
        context = container.streams.video[0].codec_context
        coded = (context.color_primaries, context.color_trc, context.color_range)
    assert (found["title"], found["my_own"]) == ("A title", "kept")
    assert coded == (tags[0], tags[1], tags[3])


def test_untagged_video_is_tagged_as_it_was_read(tmp_path: Path, make_clip: MakeClip) -> None:
    copy_through(make_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    out = probe(tmp_path / "out.mp4")
    assert (out.pixel.matrix, out.pixel.primaries, out.pixel.transfer) == ("bt601", 6, 6)
    assert out.guesses == ()


def test_upright_pictures_carry_no_rotation(tmp_path: Path, make_clip: MakeClip) -> None:
    copy_through(make_clip(tmp_path / "in.mp4", size=(34, 20), rotation=90), tmp_path / "out.mp4")
    out = probe(tmp_path / "out.mp4")
    assert (out.width, out.height, out.rotation) == (20, 34, 0)


def rich_mkv(path: Path, clip: Path) -> Path:
    """A video with sound, a subtitle, a font, a cover, chapters and dispositions."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        video, audio = source.streams.video[0], source.streams.audio[0]
        copies = {
            stream.index: output.add_stream_from_template(stream) for stream in (video, audio)
        }
        copies[audio.index].metadata.update({"language": "deu", "title": "Kommentar"})
        copies[audio.index].disposition = av.stream.Disposition.comment
        text = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        output.add_attachment("font.ttf", "application/x-truetype-font", b"not really a font")
        output.add_attachment("cover.png", "image/png", one_png())
        output.set_chapters(
            [
                {"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {}},
                {
                    "id": 2,
                    "start": 80,
                    "end": 200,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "Two"},
                },
            ]
        )
        line = av.Packet(b"hello")
        line.stream, line.pts, line.dts, line.duration = text, 40, 40, 100
        line.time_base = Fraction(1, 1000)
        for packet in source.demux(video, audio):
            if packet.size:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
        output.mux(line)
    return path


def test_mkv_keeps_everything(tmp_path: Path, make_clip: MakeClip) -> None:
    source = rich_mkv(tmp_path / "in.mkv", make_clip(tmp_path / "clip.mp4", audio=0.3))
    writer = copy_through(source, tmp_path / "out.mkv")
    assert writer.warnings == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        kinds = [stream.type for stream in container.streams]
        assert sorted(kinds) == ["attachment", "audio", "subtitle", "video", "video"]
        audio = container.streams.audio[0]
        assert (audio.metadata["language"], audio.metadata["title"]) == ("deu", "Kommentar")
        assert audio.disposition == av.stream.Disposition.comment
        font = container.streams.attachments[0]
        assert (font.metadata["filename"], font.data) == ("font.ttf", b"not really a font")
        assert container.streams.video[1].metadata["filename"] == "cover.png"
        chapters = container.chapters()
        assert [float(part["end"] * (part["time_base"] or 0)) for part in chapters] == [0.08, 0.2]
        assert chapters[1]["metadata"]["title"] == "Two"
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(source, "subtitle")


@pytest.mark.parametrize(("suffix", "covered"), [(".mp4", 1), (".mov", 0)])
def test_mp4_says_what_it_cannot_hold(
    tmp_path: Path, make_clip: MakeClip, suffix: str, covered: int
) -> None:
    source = rich_mkv(tmp_path / "in.mkv", make_clip(tmp_path / "clip.mp4", audio=0.3))
    output = tmp_path / f"out{suffix}"
    subtitle, font, *cover = copy_through(source, output).warnings
    assert "subtitle" in subtitle and "becomes mov_text" in subtitle
    assert "attachment" in font and "left out" in font
    assert [("left out" in line, ".mp4 would keep it" in line) for line in cover] == [
        (True, True)
    ] * (1 - covered)
    with av.open(str(output)) as container:
        assert len(container.streams.subtitles) == 1
        assert len(container.streams.audio) == 1
        assert len(container.chapters()) == 2
        covers = [
            stream
            for stream in container.streams.video
            if stream.disposition & av.stream.Disposition.attached_pic
        ]
        assert len(covers) == covered


def test_audio_that_does_not_fit_is_found_before_work(tmp_path: Path, make_clip: MakeClip) -> None:
    info = probe(make_clip(tmp_path / "in.avi", audio=0.5, audio_codec="pcm_alaw"))
    plan = check_output(spec(tmp_path / "out.mp4", info), info)
    assert (plan.streams, plan.recoded) == ((), (1,))
    assert "becomes aac; a .mov would keep it as it is" in plan.warnings[0]
    plan = check_output(spec(tmp_path / "out.mp4", info, copy_audio=False), info)
    assert (plan.recoded, plan.warnings) == ((), ())
    assert check_output(spec(tmp_path / "out.mov", info), info).streams == (1,)


def test_mpeg_clocks_start_at_zero_and_stay_together(tmp_path: Path, make_clip: MakeClip) -> None:
    source = tmp_path / "in.ts"
    with (
        av.open(str(make_clip(tmp_path / "clip.mp4", frames=20, audio=0.8))) as clip,
        av.open(str(source), "w") as output,
    ):
        copies = {stream: output.add_stream_from_template(stream) for stream in clip.streams}
        for packet in clip.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                late = round(1000 / packet.time_base)
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
                packet.stream = copies[packet.stream]
                output.mux(packet)
    copy_through(source, tmp_path / "out.mp4")
    before, after = times(source), times(tmp_path / "out.mp4")
    assert before[0] > 999 and after[0] < 1
    sound = [packets(path, "audio")[0][1] for path in (source, tmp_path / "out.mp4")]
    assert sound[1] - float(after[0]) == pytest.approx(sound[0] - float(before[0]), abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_before_zero_are_not_cut(tmp_path: Path, make_clip: MakeClip, suffix: str) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    out = spec(tmp_path / f"out{suffix}", info)
    step = round(1 / (25 * info.time_base))
    with Writer(out, info) as writer:
        for number in range(-4, 4):
            writer.write(Frame(flat_planes(out.pixel, 32, 24), number * step, step))
    found = times(out.path)
    assert len(found) == 9
    assert [at - found[0] for at in found] == [Fraction(number, 25) for number in range(9)]


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0), (".tiff", 0), (".jpg", 4), (".webp", 4)]
)
def test_images_come_back(
    tmp_path: Path, make_picture: MakePicture, suffix: str, tolerance: int
) -> None:
    pixel = PixelFormat(
        bits=8, layout="rgb", chroma=(1, 1), matrix="rgb", full_range=True, siting="center"
    )
    source = tmp_path / "in.png"
    source.write_bytes(one_png())
    info = probe(source)
    out = spec(tmp_path / f"out{suffix}", replace(info, width=33, height=17, pixel=pixel))
    planes = make_picture(0, 33, 17, "gbrp")
    if out.pixel.layout == "yuv":
        name = "yuv420p" if out.pixel.subsampled else "yuv444p"
        planes = make_picture(0, 33, 17, name)
    with Writer(out, info) as writer:
        writer.write(Frame(planes, 0, 1))
    with Reader(out.path) as reader:
        (frame,) = reader
        assert reader.info.pixel.full_range == out.pixel.full_range
    for given, found in zip(planes, frame.planes, strict=True):
        assert np.abs(given.astype(int) - found).max() <= tolerance
    assert nothing_left(tmp_path)


def test_images_of_sixteen_bits(tmp_path: Path, make_picture: MakePicture) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(one_png())
    info = probe(source)
    deep = replace(info, width=9, height=7, pixel=replace(info.pixel, bits=12))
    planes = make_picture(0, 9, 7, "gbrp16le")
    with Writer(spec(tmp_path / "out.png", deep), deep) as writer:
        writer.write(Frame(planes, 0, 1))
    with Reader(tmp_path / "out.png") as reader:
        (frame,) = reader
    for given, found in zip(planes, frame.planes, strict=True):
        assert np.array_equal(given, found)


def test_a_still_picture_can_become_a_video(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(one_png())
    copy_through(source, tmp_path / "out.mp4")
    assert len(times(tmp_path / "out.mp4")) == 2
