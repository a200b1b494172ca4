"""NVENC and NVDEC where there is neither: said in a line, and software in their place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext

from vr_trt import Restorer
from vr_trt.cli import exit_code
from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import UsageError
from vr_trt.runtime import doctor, gpu_codecs
from vr_trt.runtime.encode import OutputSpec, SegmentEncoder, configure
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.gpu_codecs import (
    TRIALS,
    choose_decoder,
    choose_encoder,
    probe_decoder,
    probe_encoder,
)
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.video_codecs import CODECS, NVENC

MakeClip = Callable[..., Path]
YUV = PixelFormat(
    bits=8, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
)
YUV10 = replace(YUV, bits=10)
SOFTWARE = {"av1": "libdav1d"}  # FFmpeg's own decoder of AV1 is for hardware only
WITHOUT = pytest.mark.skipif(present_gpu() is not None, reason="there is a GPU here")


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that nobody has asked about its codecs yet."""
    monkeypatch.setattr(gpu_codecs, "present_gpu", lambda: object())


@WITHOUT
@pytest.mark.parametrize("name", NVENC)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "p010le"])
def test_nvenc_without_a_driver(name: str, pix_fmt: str) -> None:
    reason = probe_encoder(NVENC[name].encoder, pix_fmt)
    assert reason.startswith(f"{name}_nvenc in {pix_fmt} does not work here (")
    assert "libcuda" in reason and "\n" not in reason


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: "-".join(trial[:2]))
def test_the_trial_of_a_decoder_works_in_software(trial: tuple[str, str, str]) -> None:
    codec, *rest = trial
    assert probe_decoder(SOFTWARE.get(codec, codec), *rest, hardware=False) == ""
    if present_gpu() is None:
        assert "does not work here" in probe_decoder(*trial)


def test_a_trial_without_a_picture_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_codecs.tried("nothing", lambda: 0) == "nothing gives no picture"
    level = av.logging.get_level()
    probe_encoder.__wrapped__("h264_nvenc", "yuv420p")
    assert av.logging.get_level() == level


@WITHOUT
def test_auto_is_software_without_a_word_where_there_is_no_gpu() -> None:
    assert choose_encoder("auto", CODECS["hevc"], YUV) == (CODECS["hevc"], "")


@WITHOUT
@pytest.mark.usefixtures("a_card")
def test_a_card_without_nvenc_is_told_of() -> None:
    codec, line = choose_encoder("auto", CODECS["hevc"], YUV10)
    assert codec is CODECS["hevc"]
    assert line.startswith("encoded by libx265 on the CPU: hevc_nvenc in p010le does not work")


@pytest.mark.usefixtures("a_card")
def test_a_card_with_nvenc_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_codecs, "probe_encoder", lambda *_: "")
    assert choose_encoder("auto", CODECS["av1"], YUV10) == (NVENC["av1"], "")
    assert choose_encoder("software", CODECS["av1"], YUV10) == (CODECS["av1"], "")
    odd, line = choose_encoder("auto", CODECS["h264"], replace(YUV, chroma=(1, 1)))
    assert odd is CODECS["h264"] and "the size is odd" in line
    assert choose_encoder("auto", CODECS["ffv1"], YUV)[1].endswith("NVENC has no ffv1")


def test_what_was_asked_for_and_is_not_there() -> None:
    with pytest.raises(UsageError, match="NVENC has no prores; use --encoder software"):
        choose_encoder("nvenc", CODECS["prores"], YUV10)
    with pytest.raises(UsageError, match="unknown encoder 'gpu': choose one of auto, nvenc"):
        choose_encoder("gpu", CODECS["h264"], YUV)


@WITHOUT
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--encoder", "nvenc", "no NVENC for this output: h264_nvenc in yuv420p does not work"),
        ("--encoder", "gpu", "unknown encoder 'gpu'"),
        ("--decoder", "nvdec", "NVDEC of h264 in 8 bits does not work here"),
        ("--decoder", "gpu", "unknown decoder 'gpu'"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path,
    make_clip: MakeClip,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    said: str,
) -> None:
    clip = make_clip(tmp_path / "in.mp4")
    assert exit_code(["run", str(clip), option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@WITHOUT
@pytest.mark.usefixtures("a_card")
def test_a_file_that_nvdec_cannot_is_decoded_on_the_cpu(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    nvdec, line = choose_decoder("auto", info)
    assert not nvdec and line.startswith("decoded on the CPU: NVDEC of h264 in 8 bits does not")
    wide = probe(make_clip(tmp_path / "wide.mp4", pix_fmt="yuv444p"))
    assert choose_decoder("auto", wide)[1].endswith("can be read in 4:2:0 only")
    assert choose_decoder("software", info) == (False, "")


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264", "yuv420p"), ("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p")],
)
def test_a_decoder_of_its_own_gives_the_same_frames(
    tmp_path: Path,
    make_clip: MakeClip,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    pix_fmt: str,
) -> None:
    """NVDEC's way through the reader, with software in the decoder's place."""
    own: Any = gpu_codecs._context
    monkeypatch.setattr(
        gpu_codecs, "_context", lambda name, extra, options: own(SOFTWARE.get(name, name), extra, None)
    )  # fmt: skip
    clip = make_clip(tmp_path / "in.mkv", codec=codec, pix_fmt=pix_fmt, size=(64, 64), frames=12)
    info = probe(clip)
    with Reader(clip, info) as plain, Reader(clip, replace(info, nvdec=True)) as other:
        frames, others = list(plain), list(other)
    assert len(frames) == 12
    for a, b in zip(frames, others, strict=True):
        assert (a.pts, a.duration) == (b.pts, b.duration)
        for one, two in zip(a.planes, b.planes, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("codec", NVENC)
@pytest.mark.parametrize("pixel", [YUV, YUV10], ids=["8 bits", "10 bits"])
@pytest.mark.parametrize("choices", [{}, {"crf": 20.0, "preset": "p7"}, {"bitrate": 9_000_000}])
def test_nvenc_is_given_options_that_it_has(
    tmp_path: Path, make_clip: MakeClip, codec: str, pixel: PixelFormat, choices: dict[str, Any]
) -> None:
    source = probe(make_clip(tmp_path / "in.mp4"))
    path = tmp_path / "out.mkv"
    target = OutputSpec(
        path=path, width=320, height=192, pixel=pixel, codec=codec, nvenc=True, **choices
    )
    context = av.CodecContext.create(target.coder.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    configure(context, target, source)
    formats = context.codec.video_formats
    assert formats is not None and context.pix_fmt in [known.name for known in formats]
    options = context.supported_options
    known = {option.name: option for option in (*options.generic, *options.private)}
    assert set(context.options) <= set(known)
    for name in ("preset", "tune", "rc"):
        assert context.options[name] in [choice.name for choice in known[name].choices]
    if "bitrate" in choices:
        assert context.bit_rate == 9_000_000 and "cq" not in context.options
    else:
        assert known["cq"].min < float(context.options["cq"]) <= known["cq"].max
        assert context.options["b"] == "0"


def test_presets_of_the_software_s_scale() -> None:
    scale = [NVENC["h264"].preset_for(name) for name in CODECS["h264"].presets]
    assert scale == sorted(scale) and (scale[0], scale[-1]) == ("p1", "p7")
    assert NVENC["av1"].preset_for("0") == "p7" and NVENC["av1"].preset_for("13") == "p1"
    assert NVENC["hevc"].preset_for("p3") == "p3"
    with pytest.raises(UsageError, match="preset 'p9' of h264 is unknown"):
        OutputSpec(path=Path("x.mp4"), width=64, height=64, pixel=YUV, nvenc=True, preset="p9")
    with pytest.raises(UsageError, match="preset 'p3' of h264 is unknown"):
        OutputSpec(path=Path("x.mp4"), width=64, height=64, pixel=YUV, preset="p3")


@WITHOUT
def test_doctor_tries_them_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [found for found in doctor._gpu_codecs()]
    monkeypatch.setattr(doctor, "present_gpu", lambda: object())
    encoders, decoders, on_card = doctor._gpu_codecs()
    assert (encoders.name, decoders.name) == ("NVENC", "NVDEC")
    assert not encoders.ok and "av1_nvenc in p010le does not work here" in encoders.detail
    assert not decoders.ok and "NVDEC of vp9 in yuv420p does not work here" in decoders.detail
    assert "the CPU takes its place" in encoders.remedy and not encoders.needed
    assert on_card.name == "frames on the card" and not on_card.ok
    assert on_card.detail.startswith("CUDA does not work here (")
    assert "; h264_nvenc from the card's memory does not work here (" in on_card.detail
    assert on_card.remedy == "frames cross the host instead"


@WITHOUT
def test_a_plan_says_who_decodes_and_encodes(tmp_path: Path, make_clip: MakeClip) -> None:
    clip = make_clip(tmp_path / "in.mp4")
    with Restorer(profile="360p") as restorer:
        video = restorer.plan(clip, tmp_path / "out.webm")
        images = restorer.plan(clip, tmp_path / "out%03d.png")
    assert video.codecs == ("decoded on the CPU", "encoded by libsvtav1")
    assert images.codecs == ("decoded on the CPU",)


@pytest.mark.gpu
@pytest.mark.parametrize("codec", NVENC)
@pytest.mark.parametrize("pixel", [YUV, YUV10], ids=["8 bits", "10 bits"])
def test_nvenc_encodes_what_nvdec_decodes(
    tmp_path: Path, make_clip: MakeClip, codec: str, pixel: PixelFormat
) -> None:
    """Never executed: there was no GPU. Skipped by itself on cards without NVENC."""
    target = OutputSpec(
        path=tmp_path / "x.mkv", width=320, height=192, pixel=pixel, codec=codec, nvenc=True
    )
    if reason := probe_encoder(target.coder.encoder, target.format_name):
        pytest.skip(reason)
    source = probe(make_clip(tmp_path / "in.mp4", size=(320, 192), frames=9))
    encoder = SegmentEncoder(target, source)
    planes = [np.full(shape, 64 << (pixel.bits - 8), pixel.dtype) for shape in pixel.plane_shapes(320, 192)]  # fmt: skip
    packets: list[Any] = []
    for number in range(9):
        packets += encoder.encode(Frame((planes[0], planes[1], planes[2]), number, 1))
    packets += encoder.drain()
    assert sorted(packet.pts or 0 for packet in packets) == list(range(9)) and encoder.header
