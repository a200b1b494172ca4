"""HDR's metadata from one file into another."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.runtime.conftest import picture, write_clip

from vr_trt.runtime import hdr
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.hdr import HdrMetadata, dynamic_metadata, hdr_notes, is_dolby_vision_alone
from vr_trt.runtime.reader import probe
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.writer import Writer

DISPLAY = tuple(
    Fraction(value, 50_000)
    for value in (34_000, 16_000, 13_250, 34_500, 7_500, 3_000, 15_635, 16_450)
) + (Fraction(1, 10_000), Fraction(1000))
PARAMETERS = (
    "log-level=none:hdr10=1:repeat-headers=1:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    """Ten-bit PQ in BT.2020 with both kinds of metadata."""
    path = write_clip(
        tmp_path_factory.mktemp("hdr") / "in.mkv",
        codec="libx265",
        pix_fmt="yuv420p10le",
        size=(64, 64),
        tags=(9, 16, 9, 1),
        options={"x265-params": PARAMETERS},
    )
    return probe(path)


def test_the_metadata_is_read(film: VideoInfo) -> None:
    assert film.hdr == HdrMetadata(display=DISPLAY, light=(1000, 400))


@pytest.mark.parametrize(
    ("codec", "suffix"), [("hevc", ".mp4"), ("hevc", ".mkv"), ("av1", ".mkv"), ("h264", ".mp4")]
)
def test_the_metadata_reaches_the_output(
    film: VideoInfo, tmp_path: Path, codec: str, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    with Writer(
        OutputSpec(path=path, width=64, height=64, pixel=film.pixel, codec=codec), film
    ) as writer:
        for number in range(5):
            pts = number * round(Fraction(1, 25) / film.time_base)
            writer.write(Frame(picture(number, 64, 64, "yuv420p10le"), pts, 0))
    out = probe(path)
    assert (out.pixel.bits, out.pixel.primaries, out.pixel.transfer) == (10, 9, 16)
    assert out.pixel.matrix == "bt2020" and not out.pixel.full_range
    if codec == "h264":
        assert out.hdr is None
        assert writer.warnings == [
            "h264 does not carry HDR mastering metadata; hevc and av1 by software do"
        ]
    else:
        assert writer.warnings == []
        assert out.hdr is not None and out.hdr.light == (1000, 400)
        assert out.hdr.display == pytest.approx(DISPLAY, abs=1 / 16384)  # AV1 steps by that


def test_eight_bits_are_warned_about() -> None:
    assert hdr_notes(None, 18, "h264", 8) == ["HLG in 8 bits shows bands: --bits 10 avoids them"]
    assert hdr_notes(None, 18, "h264", 10) == hdr_notes(None, 1, "h264", 8) == []


def test_metadata_of_scenes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoder at hand writes any, so the frame says that it has some."""
    frame = av.VideoFrame(16, 16, "yuv420p10le")
    assert dynamic_metadata(frame) is None
    monkeypatch.setattr(hdr, "_side_data", lambda _, name, size: name == "DYNAMIC_HDR_PLUS")
    note = dynamic_metadata(frame)
    assert note is not None and note.startswith("HDR10+ metadata is dropped")
    assert not is_dolby_vision_alone(frame)
    monkeypatch.setattr(hdr, "_side_data", lambda _, name, size: name == "DOVI_METADATA")
    assert is_dolby_vision_alone(frame)
    frame.colorspace, frame.color_trc = 9, 18  # as telephones make it: others read its HLG
    assert not is_dolby_vision_alone(frame)


@pytest.mark.parametrize(
    ("name", "transfer", "asked", "codec"),
    [
        ("a.mp4", 16, None, "hevc"),
        ("a.mkv", 18, None, "hevc"),
        ("a.mp4", 1, None, "h264"),
        ("a.webm", 16, None, "av1"),
        ("a.mp4", 16, "h264", "h264"),
    ],
)
def test_hdr_is_hevc_unless_told_otherwise(
    name: str, transfer: int, asked: str | None, codec: str
) -> None:
    assert Encoding(codec=asked).codec_for(Path(name), transfer).name == codec
