"""Small files of every kind that is read: what the fuzzer mutates."""

import json
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream
from tests.fake_model import write_manifest
from tests.media import picture
from tests.runtime.conftest import write_clip

from vr_trt.runtime.batch import Entry
from vr_trt.runtime.cut_list import Cut, write_cut_list
from vr_trt.runtime.frames import Join
from vr_trt.runtime.journal import Journal, Segment

FRAMES = 10
SIZE = (48, 32)
UNEVEN = [0, 40, 100, 133, 200, 260, 300, 400, 410, 500]  # milliseconds


def media(folder: Path) -> list[Path]:
    """Videos and pictures, a few kilobytes each."""
    clips: dict[str, dict[str, object]] = {
        "h264.mp4": {"audio": 0.4, "metadata": {"title": "x"}},
        "turned.mov": {"rotation": 90, "audio": 0.4},
        "hevc10.mp4": {
            "codec": "libx265",
            "size": (64, 64),  # x265 corrupts the heap on smaller pictures
            "pix_fmt": "yuv420p10le",
            "tags": (9, 16, 9, 1),
            "options": {"x265-params": "log-level=none:pools=1"},
        },
        "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "frames": 3},
        "uneven.mkv": {
            "codec": "ffv1",
            "pts": UNEVEN,
            "time_base": Fraction(1, 1000),
            "audio": 0.4,
        },
        "h264.mkv": {"audio": 0.4, "aspect": Fraction(4, 3)},
        "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
        "av1.webm": {"codec": "libsvtav1", "size": (64, 64), "options": {"preset": "12"}},
        "mpeg4.avi": {"codec": "mpeg4", "audio": 0.4, "audio_codec": "adpcm_ms"},
        "h264.ts": {},
        "wmv2.wmv": {"codec": "wmv2", "audio": 0.4, "audio_codec": "wmav2", "audio_bits": 64_000},
        "flv.flv": {"codec": "flv"},
        "raw.nut": {"codec": "rawvideo", "frames": 3},
    }
    found = []
    for name, choices in clips.items():
        given = {"frames": FRAMES, "size": SIZE, **choices}
        found.append(write_clip(folder / name, **given))
    found.append(_fragmented(folder / "fragmented.mp4"))
    found.append(_y4m(folder / "raw.y4m"))
    found.append(_gif(folder / "moving.gif"))
    return found + [_still(folder / f"still.{kind}") for kind in _STILLS]


_STILLS = {
    "png": ("png", "rgb24"),
    "jpg": ("mjpeg", "yuvj420p"),
    "webp": ("libwebp", "yuv420p"),
    "tiff": ("tiff", "rgb48le"),
    "bmp": ("bmp", "bgr24"),
}


def _still(path: Path) -> Path:
    codec, pixel = _STILLS[path.suffix[1:]]
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as output:
        stream = output.add_stream(codec, rate=1)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel
        frame = av.VideoFrame.from_ndarray(picture(0, *SIZE), format="rgb24")
        output.mux(stream.encode(frame.reformat(format=pixel)))
        output.mux(stream.encode(None))
    return path


def _fragmented(path: Path) -> Path:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "4"})
        _encode(output, stream, "yuv420p")
    return path


def _y4m(path: Path) -> Path:
    with av.open(str(path), "w", format="yuv4mpegpipe") as output:
        _encode(output, output.add_stream("wrapped_avframe", rate=25), "yuv420p", frames=3)
    return path


def _gif(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        _encode(output, output.add_stream("gif", rate=10), "rgb8", frames=4)
    return path


def _encode(
    output: av.container.OutputContainer, stream: object, pixel: str, frames: int = FRAMES
) -> None:
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = *SIZE, pixel
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(picture(number, *SIZE), format="rgb24")
        output.mux(stream.encode(frame.reformat(format=pixel)))
    output.mux(stream.encode(None))


def cut_list(folder: Path) -> Path:
    """A list of cuts as `vr-trt cuts` writes it."""
    path = folder / "list.cuts"
    write_cut_list(path, [Cut(12, 0.48), Cut(120, 4.8), Cut(99999, 3999.96)])
    return path


def journal(folder: Path) -> Path:
    """The journal of a stopped run, with two segments beside it."""
    run = Journal(folder / "film.mp4", {"input": "abc", "seed": 1})
    run.begin()
    for number in range(2):
        run.segment_path(number).write_bytes(b"segment")
        run.add(
            Segment(
                first=number * 120,
                frames=120,
                start_pts=number * 120,
                end_pts=number * 120 + 120,
                depth=2,
                tail=("ab12", "cd34"),
                bytes=7,
                following=Join(number * 120 + 120, 0),
            )
        )
    run.release()
    return run.folder / "journal.jsonl"


def manifest(folder: Path) -> Path:
    """A model's manifest."""
    model = folder / "model"
    model.mkdir()
    for stage in ("encode", "decode"):
        for call in ("image", "start", "step"):
            (model / f"{stage}_{call}.onnx").write_bytes(b"graph")
    (model / "generator.onnx").write_bytes(b"graph")
    write_manifest(model, shape={"width": 64, "height": 64, "latents": 6, "step": 1})
    return model / "manifest.json"


def batch_list(folder: Path) -> Path:
    """Paths for `vr-trt batch`, one a line."""
    path = folder / "films.txt"
    path.write_text("# films\nh264.mp4\nuneven.mkv\nstill.png\n", encoding="utf-8")
    return path


def batch_objects(folder: Path) -> Path:
    """The same as objects, with options."""
    path = folder / "films.jsonl"
    asked = [
        {"input": "h264.mp4", "output": "a.mp4", "profile": "360p", "codec": "hevc", "seed": 3},
        {"input": "uneven.mkv", "output": "b.mkv", "crf": 18, "cuts": "none", "range": "0-5"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")
    return path


def batch_report(folder: Path) -> Path:
    """What an earlier batch did."""
    path = folder / "films.report.json"
    done = asdict(Entry(input="h264.mp4", output="a.mp4", status="done", frames=10, bytes=123))
    path.write_text(json.dumps({"files": [done, done]}, indent=1), encoding="utf-8")
    return path


TEXTS: tuple[Callable[[Path], Path], ...] = (
    cut_list,
    journal,
    manifest,
    batch_list,
    batch_objects,
    batch_report,
)
