from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.media import make_image, with_orientation

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.still import encode_image

MakeClip = Callable[..., Path]


def write_image(path: Path, pixel: PixelFormat, width: int = 16, height: int = 8) -> Path:
    planes = [np.full(shape, 90, pixel.dtype) for shape in pixel.plane_shapes(width, height)]
    frame = Frame((planes[0], planes[1], planes[2]), 0, 1)
    path.write_bytes(encode_image(frame, pixel, path.suffix))
    return path


def pixel_of(layout: str, bits: int, full: bool, chroma: tuple[int, int] = (1, 1)) -> PixelFormat:
    rgb = layout == "rgb"
    return PixelFormat(
        bits=bits,
        layout="rgb" if rgb else "yuv",
        chroma=chroma,
        matrix="rgb" if rgb else "bt601",
        full_range=full,
        siting="center",
    )


def test_a_tagged_video_needs_no_guess(tmp_path: Path, make_clip: MakeClip) -> None:
    path = make_clip(
        tmp_path / "clip.mp4",
        frames=6,
        size=(34, 20),
        rate=Fraction(30000, 1001),
        tags=(9, 16, 9, 1),
        pix_fmt="yuv444p10le",
        aspect=Fraction(4, 3),
        audio=0.3,
    )
    info = probe(path)
    assert (info.width, info.height, info.frames, info.audio_streams) == (34, 20, 6, 1)
    assert info.frame_rate == Fraction(30000, 1001)
    assert info.seconds == pytest.approx(6 * 1001 / 30000)
    assert info.sample_aspect == Fraction(4, 3)
    assert info.pixel == PixelFormat(
        bits=10,
        layout="yuv",
        chroma=(1, 1),
        matrix="bt2020",
        full_range=False,
        siting="topleft",
        primaries=9,
        transfer=16,
    )
    assert not info.is_image
    assert info.guesses == ()


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), "bt601"), ((1280, 16), "bt709")])
def test_untagged_colour_is_guessed_and_said(
    tmp_path: Path, make_clip: MakeClip, size: tuple[int, int], matrix: str
) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", frames=1, size=size))
    assert (info.pixel.matrix, info.pixel.full_range) == (matrix, False)
    assert len(info.guesses) == 2 and matrix in info.guesses[0]


@pytest.mark.parametrize(
    ("rotation", "mirrored", "size", "siting"),
    [
        (0, False, (34, 20), "left"),
        (90, False, (20, 34), "top"),
        (180, False, (34, 20), "right"),
        (270, False, (20, 34), "bottom"),
        (0, True, (34, 20), "right"),
    ],
)
def test_sizes_aspect_and_siting_are_upright(
    tmp_path: Path,
    make_clip: MakeClip,
    rotation: int,
    mirrored: bool,
    size: tuple[int, int],
    siting: str,
) -> None:
    path = make_clip(
        tmp_path / "clip.mp4",
        size=(34, 20),
        rotation=rotation,
        mirrored=mirrored,
        aspect=Fraction(2, 1),
    )
    info = probe(path)
    assert (info.rotation, info.mirrored) == (rotation, mirrored)
    assert (info.width, info.height) == size
    assert info.sample_aspect == (Fraction(1, 2) if rotation % 180 else Fraction(2))
    assert info.pixel.siting == siting


def test_turning_exchanges_the_chroma_factors(tmp_path: Path, make_clip: MakeClip) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", pix_fmt="yuv422p", rotation=90))
    assert info.pixel.chroma == (1, 2)


@pytest.mark.parametrize(
    ("pixel", "bits"), [("gray", 8), ("gray16be", 16), ("ya8", 8), ("monob", 8)]
)
def test_grey_scans(tmp_path: Path, pixel: str, bits: int) -> None:
    """FFmpeg says of every PNG that its matrix is that of RGB."""
    info = probe(make_image(tmp_path / "scan.png", size=(16, 8), pixel=pixel))
    assert (info.pixel.layout, info.pixel.bits, info.pixel.full_range) == ("gray", bits, True)
    assert not [line for line in info.guesses if "matrix" in line]
    with Reader(info.path, info) as reader:
        assert len(list(reader)) == 1


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("a.png", pixel_of("rgb", 8, True)),
        ("b.png", pixel_of("rgb", 16, True)),
        ("c.jpg", pixel_of("yuv", 8, True)),
        ("d.webp", pixel_of("yuv", 8, False, (2, 2))),
        ("e.tiff", pixel_of("rgb", 16, True)),
        ("100%d.png", pixel_of("rgb", 8, True)),  # not a pattern for a sequence
        ("a:b.png", pixel_of("rgb", 8, True)),  # not a protocol
    ],
)
def test_images(
    tmp_path: Path, name: str, pixel: PixelFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    info = probe(write_image(Path(name), pixel))
    assert info.is_image
    assert (info.frames, info.width, info.height) == (1, 16, 8)
    found = info.pixel
    assert (found.layout, found.bits, found.chroma, found.matrix, found.full_range) == (
        pixel.layout,
        pixel.bits,
        pixel.chroma,
        pixel.matrix,
        pixel.full_range,
    )


@pytest.mark.parametrize(
    ("exif", "rotation", "mirrored"),
    [(1, 0, False), (2, 0, True), (3, 180, False), (4, 180, True)]
    + [(5, 90, True), (6, 90, False), (7, 270, True), (8, 270, False)],
)
def test_exif_orientation(tmp_path: Path, exif: int, rotation: int, mirrored: bool) -> None:
    path = write_image(tmp_path / "a.jpg", pixel_of("yuv", 8, True))
    info = probe(with_orientation(path, exif))
    assert (info.rotation, info.mirrored) == (rotation, mirrored)
    assert (info.width, info.height) == ((8, 16) if rotation % 180 else (16, 8))


def test_a_gif_of_one_picture_is_an_image_of_more_a_video(tmp_path: Path) -> None:
    for count in (1, 3):
        with av.open(str(tmp_path / f"{count}.gif"), "w") as output:
            stream = output.add_stream("gif", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 16, 8, "rgb8"
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(
                    np.full((8, 16, 3), 80 * number, np.uint8), format="rgb24"
                )
                output.mux(stream.encode(frame.reformat(format="rgb8")))
            output.mux(stream.encode(None))
    assert probe(tmp_path / "1.gif").is_image
    assert not probe(tmp_path / "3.gif").is_image
    assert "transparency is dropped" in probe(tmp_path / "3.gif").guesses


def write_missing(path: Path, clip: Path) -> None:
    """Leave the file out."""


def write_directory(path: Path, clip: Path) -> None:
    path.mkdir()


def write_empty(path: Path, clip: Path) -> None:
    path.touch()


def write_text(path: Path, clip: Path) -> None:
    path.write_text("this is not a video\n" * 100)


def write_sound(path: Path, clip: Path) -> None:
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                output.mux(packet)


def write_sound_with_cover(path: Path, clip: Path) -> None:
    image = write_image(path.with_name("cover.png"), pixel_of("rgb", 8, True))
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.audio[0])
        cover = output.add_stream("png", rate=1)
        assert isinstance(cover, av.VideoStream)
        context = cover.codec_context
        context.width, context.height, context.pix_fmt = 16, 8, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(image.read_bytes())
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1)
        output.mux(packet)
        for sound in source.demux(source.streams.audio[0]):
            if sound.size:
                sound.stream = copy
                output.mux(sound)


def write_head(path: Path, clip: Path) -> None:
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])


def write_frameless(path: Path, clip: Path) -> None:
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        output.add_stream_from_template(source.streams.video[0])
        output.start_encoding()


def write_frameless_mkv(path: Path, clip: Path) -> None:
    with av.open(str(clip)) as source, av.open(str(path), "w", format="matroska") as output:
        output.add_stream_from_template(source.streams.video[0])
        output.start_encoding()


def write_zeros(path: Path, clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    path.write_bytes(data)


def write_animated_webp(path: Path, clip: Path) -> None:
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes([2]) + bytes(9) + b"ANIM" + bytes(60)
    path.write_bytes(b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk)


@pytest.mark.parametrize(
    ("write", "error", "says"),
    [
        (write_missing, UsageError, "does not exist"),
        (write_directory, UsageError, "is a directory"),
        (write_empty, UsageError, "is empty"),
        (write_text, UsageError, "is not a video or image"),
        (write_sound, UsageError, "holds no video"),
        (write_sound_with_cover, UsageError, "holds no video"),
        (write_head, DamagedInputError, "damaged or cut off"),
        (write_frameless, DamagedInputError, "holds no frames"),
        (write_frameless_mkv, DamagedInputError, "damaged or cut off"),
        (write_animated_webp, UsageError, "animated WebP"),
        (write_zeros, DamagedInputError, "no picture could be decoded"),
    ],
)
def test_unusable_inputs_say_so_in_one_line(
    tmp_path: Path,
    make_clip: MakeClip,
    write: Callable[[Path, Path], None],
    error: type[UsageError] | type[DamagedInputError],
    says: str,
) -> None:
    clip = make_clip(tmp_path / "good.mp4", audio=0.3)
    path = tmp_path / "input.mp4"
    write(path, clip)
    with pytest.raises(error, match=says) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
