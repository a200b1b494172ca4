"""The clips that quality is judged on: the demo's scene, degraded, as the networks see it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vr_trt.bench.clip_windows import Pixels
from vr_trt.bench.demo_clip import make
from vr_trt.bench.demo_scene import Scene, draw
from vr_trt.runtime.canvas import Canvas
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe

CELL = 16  # pixels: sides of these scenes are multiples of it, so that nothing is padded


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityClip:
    """A degraded clip and what it was before."""

    info: VideoInfo
    frames: list[Frame]
    x: Pixels  # degraded, brought to the clean clip's size
    clean: Pixels

    @property
    def canvas(self) -> Canvas:
        """The size at which it is restored: the clean clip's."""
        height, width = self.x.shape[-2:]
        return Canvas(out_w=width, out_h=height, padded_w=width, padded_h=height)

    @property
    def source(self) -> Picture:
        """What its frames are."""
        return Picture(width=self.info.width, height=self.info.height, pixel=self.info.pixel)


def quality_clip(folder: Path, scene: Scene) -> QualityClip:
    """Make the clip of `scene` in `folder`; its sides are multiples of 16, its frames 4n + 1."""
    assert not (scene.width % CELL or scene.height % CELL or scene.frames % 4 - 1)
    path = folder / f"{scene.width}x{scene.height}-{scene.frames}-{scene.seed}.mp4"
    make(path, scene)
    info = probe(path)
    size = Canvas(
        out_w=scene.width, out_h=scene.height, padded_w=scene.width, padded_h=scene.height
    )
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    with Reader(path, info) as reader:
        frames = list(reader)
    clean_FHWC = np.stack(list(draw(scene)))
    return QualityClip(
        info=info,
        frames=frames,
        x=PixelStages(source, source, size, "none").to_model(frames),
        clean=np.ascontiguousarray(2 * clean_FHWC.transpose(3, 0, 1, 2)[None] - 1),
    )
