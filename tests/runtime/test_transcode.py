"""Audio that the output's container does not take, and the codecs of the video beside it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.runtime.conftest import AUDIO_RATE, write_clip
from tests.writing import copy_through, times

from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.frames import Frame, Join
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.video_codecs import CODECS
from vr_trt.runtime.writer import Writer


def sound(path: Path) -> tuple[float, np.ndarray]:
    """When the sound begins, and its samples, one channel."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    start = float(frames[0].time or 0)
    samples = [frame.to_ndarray().astype(float) for frame in frames]
    scale = 32768 if frames[0].format.name.startswith("s16") else 1
    packed = not frames[0].format.is_planar
    return start, np.concatenate([s[0, ::2] if packed else s[0] for s in samples]) / scale


@pytest.mark.parametrize(
    ("came", "audio", "suffix", "becomes"),
    [
        (".wmv", "wmav2", ".mp4", "aac"),
        (".avi", "adpcm_ms", ".mp4", "aac"),
        (".avi", "adpcm_ms", ".mov", "aac"),
        (".avi", "pcm_alaw", ".mov", "keeps"),
        (".mkv", "aac", ".webm", "opus"),
        (".wmv", "wmav2", ".mkv", "flac"),
    ],
)
def test_what_does_not_fit_is_coded_again(
    tmp_path: Path, came: str, audio: str, suffix: str, becomes: str
) -> None:
    codec = "msmpeg4v3" if came in (".wmv", ".avi") else "libx264"
    source = write_clip(
        tmp_path / f"in{came}",
        codec=codec,
        frames=50,
        audio=2.0,
        audio_codec=audio,
        audio_bits=64_000 if audio == "wmav2" else 0,
        size=(64, 64),
    )
    output = tmp_path / f"out{suffix}"
    writer = copy_through(source, output, crf=30, codec="av1" if suffix == ".webm" else "h264")
    with av.open(str(output)) as container:
        name = container.streams.audio[0].codec_context.name
    if becomes == "keeps":
        assert name == audio and not writer.warnings
        return
    assert name == becomes
    (warning,) = writer.warnings
    assert f"({audio}) does not fit into the output: it becomes" in warning
    start, found = sound(output)
    begun, given = sound(source)
    shown = float(times(output)[0]) - float(times(source)[0])
    assert start - shown == pytest.approx(begun, abs=0.1)
    # the same tone: its strength, and its pitch by the strongest frequency
    strength = np.abs(given[2000:-4000]).mean()
    assert np.abs(found[4000:-8000]).mean() == pytest.approx(strength, rel=0.1)
    rate = 48_000 if becomes == "opus" else AUDIO_RATE
    peak = np.abs(np.fft.rfft(found[4000 : 4000 + rate // 2])).argmax() * 2
    assert peak == pytest.approx(0.17 * AUDIO_RATE / (2 * np.pi), abs=8)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_in_every_container(tmp_path: Path, codec: str, bits: int) -> None:
    """Joined from segments of an encoder each: frames, times, and what is said about colour."""
    one = CODECS[codec]
    if bits not in one.bits:
        pytest.skip(f"{codec} is not written in {bits} bits")
    chroma = {(2, 2): "420", (2, 1): "422", (1, 1): "444"}[one.chroma[-1]]
    name = f"yuv{chroma}p" + ("10le" if bits == 10 else "")
    shown = [0, 40, 100, 133, 200, 260, 300, 400, 410, 500, 540, 600, 640]
    source = write_clip(
        tmp_path / "in.mkv",
        codec="ffv1",
        size=(96, 64),
        pix_fmt=name,
        pts=shown,
        time_base=Fraction(1, 1000),
        tags=(1, 1, 1, 1),
    )
    info = probe(source)
    for suffix in one.containers:
        output = tmp_path / f"{codec}{suffix}"
        spec = OutputSpec(path=output, width=96, height=64, pixel=info.pixel, codec=codec)
        with Reader(source, info) as reader, Writer(spec, info) as writer:
            for number, frame in enumerate(reader):
                writer.write(joined(frame, number) if number in (0, 5, 9) else frame)
        found = probe(output)
        assert (found.pixel, found.guesses) == (info.pixel, ())
        assert [round(float(at) * 1000) for at in times(output)][:-1] == shown
        assert codec not in ("ffv1", "h264") or psnr(source, output) > 40


def joined(frame: Frame, number: int) -> Frame:
    return replace(frame, join=Join(number, 0))


def psnr(one: Path, other: Path) -> float:
    """Of the luma, in dB."""
    with Reader(one) as first, Reader(other) as second:
        errors = [
            ((a.planes[0].astype(float) - b.planes[0]) ** 2).mean()
            for a, b in zip(first, second, strict=True)
        ]
        top = 2**first.info.pixel.bits - 1
    return 10 * np.log10(top**2 / max(np.mean(errors), 1e-9))
