"""A clip through the runtime: its own schedule, sessions and graphs, frames kept as floats."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vr_trt.bench.clip_windows import Pixels
from vr_trt.bench.quality_clip import QualityClip
from vr_trt.engines.profiles import Profile
from vr_trt.export.calibration_table import table_path
from vr_trt.export.export_model import ExportPlan, export_model
from vr_trt.export.models import ModelFiles
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.entry import Entry
from vr_trt.runtime.film import Film
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.session import Array
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.writer import Writer


class _KeptPixels(PixelStages):
    """Pixel stages that keep what the decoder gives, before it is rounded to codes."""

    def __init__(self, clip: QualityClip) -> None:
        super().__init__(clip.source, clip.source, clip.canvas, "none")
        self.kept: list[Pixels] = []

    def to_video(self, x: Array, frames: Sequence[Frame]) -> Iterator[Frame]:
        """The source's frames, so that the count is right."""
        self.kept.append(np.clip(x, -1, 1))
        yield from frames


def restored(
    model: Model, clip: QualityClip, profile: Profile, seed: int = 0, entry: Entry | None = None
) -> Pixels:
    """The frames of a shot, or those from an entry into it on: [1, 3, F, H, W] in -1..1."""
    pixels = _KeptPixels(clip)
    shot = Shot(HostStages(model, pixels, profile, seed), profile, entry)
    given = clip.frames[entry.first_read if entry else 0 :]
    count = sum(1 for frame in given for _ in shot.push(frame)) + sum(1 for _ in shot.finish())
    frames = np.concatenate(pixels.kept, 2)
    assert frames.shape[2] == count
    return frames


def through_a_file(model: Model, clip: QualityClip, profile: Profile, path: Path) -> Pixels:
    """The same, written in segments and joined, without loss and in 10 bits, and read back."""
    size = clip.canvas
    wide = PixelFormat(
        bits=10, layout="yuv", chroma=(1, 1), matrix="bt709", full_range=True, siting="left"
    )
    target = Picture(width=size.out_w, height=size.out_h, pixel=wide)
    pixels = PixelStages(clip.source, target, size, "none")
    spec = OutputSpec(
        path=path, width=size.out_w, height=size.out_h, pixel=wide, codec="ffv1", copy_audio=False
    )
    film = Film(lambda entry: Shot(HostStages(model, pixels, profile, 0), profile, entry))
    # The clip is one shot, whatever a detector would say.
    with Writer(spec, clip.info) as writer:
        for frame in clip.frames:
            for done in film.push(replace(frame, starts_shot=False)):
                writer.write(done)
        for done in film.finish():
            writer.write(done)
    info = probe(path)
    back = Picture(width=info.width, height=info.height, pixel=info.pixel)
    with Reader(path, info) as reader:
        return PixelStages(back, back, size, "none").to_model(list(reader))


def half_model(files: ModelFiles, folder: Path) -> Model:
    """The graphs in fp16, as engines are built from them; ONNX Runtime rounds where they do."""
    export_model(ExportPlan(model=files, precision="fp16"), folder)
    return Model(folder)


def fp8_model(half: Path, files: ModelFiles, folder: Path) -> Model:
    """The same with the generator in E4M3, by the table beside the weights."""
    quantise_folder(half, folder, table_path(files.generator_file))
    return Model(folder, judging=True)
