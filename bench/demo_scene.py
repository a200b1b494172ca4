"""The demo clip's clean scene: photographic prints that move over a photographed table.

The photographs ship inside scikit-image: coffee and chelsea the cat (CC0), astronaut (NASA, public
domain). The camera drifts; the prints move against it by their depth and occlude one another; the
front one hops once a beat, which is what the sound follows; the light flickers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage import data, filters, transform

Picture = NDArray[np.float32]  # [H, W, 3] or, with premultiplied alpha, [H, W, 4]; 0..1

BEAT = 0.5  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What to draw: `width` and `height` in pixels, `rate` in frames a second."""

    width: int = 640
    height: int = 360
    frames: int = 48
    rate: int = 24
    seed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pose:
    """Where a layer lies: its centre in frame heights from the middle; `zoom` 1 is its own size."""

    x: float
    y: float
    zoom: float
    turn: float  # radians


def draw(scene: Scene) -> Iterator[Picture]:
    """Yield the clean frames [H, W, 3], float32 in 0..1, the same for the same scene."""
    table, cat, portrait = _layers(scene)
    random = np.random.default_rng(scene.seed)
    phases = random.uniform(0, 2 * math.pi, 4)
    flicker = 1 + 0.02 * random.standard_normal(scene.frames)
    for i in range(scene.frames):
        t = i / scene.rate
        pan = 0.16 * math.sin(0.9 * t + phases[0]), 0.05 * math.sin(1.3 * t + phases[1])
        sway = 0.05 * math.sin(1.7 * t + phases[2])
        frame = np.zeros((scene.height, scene.width, 3), np.float32)
        zoom = 1.0 + 0.06 * math.sin(0.7 * t + phases[3])
        _lay(frame, table, _Pose(x=pan[0], y=pan[1], zoom=zoom, turn=0.3 * sway))
        _lay(frame, cat, _Pose(x=0.42 + 1.8 * pan[0], y=0.06 - pan[1], zoom=1, turn=0.12 - sway))
        _lay(frame, portrait, _front_pose(t, sway))
        light = flicker[i] + 0.03 * math.sin(2 * math.pi * 3.1 * t)
        yield np.clip(frame * light, 0, 1).astype(np.float32)


def hop(t: float) -> float:
    """Height of the front print above the table at `t` seconds, 0..1; it lands on every beat."""
    phase = t / BEAT % 1.0
    return 4 * phase * (1 - phase)


def front_x(t: float) -> float:
    """The front print's place from left to right at `t` seconds, in frame heights."""
    return -0.45 + 0.5 * math.sin(0.8 * t)


def _front_pose(t: float, sway: float) -> _Pose:
    return _Pose(
        x=front_x(t), y=0.06 - 0.07 * hop(t), zoom=1 + 0.05 * hop(t), turn=1.5 * sway - 0.08
    )


def _layers(scene: Scene) -> tuple[Picture, Picture, Picture]:
    """The table, larger than the frame, and the prints of the cat and of the astronaut."""
    table = _sized(data.coffee(), round(1.45 * max(scene.height, scene.width * 9 / 16)))
    cat = _print(_sized(data.chelsea()[0:280, 60:400], round(0.62 * scene.height)))
    portrait = _print(_sized(data.astronaut()[0:290, 85:335], round(0.74 * scene.height)))
    return table, cat, portrait


def _sized(photo: NDArray[np.uint8], height: int) -> Picture:
    """A photograph [h, w, 3] of 0..255 brought to `height` rows, 0..1."""
    width = round(photo.shape[1] * height / photo.shape[0])
    sized = transform.resize(photo / 255.0, (height, width), order=3, anti_aliasing=True)
    return np.clip(sized, 0, 1).astype(np.float32)


def _print(photo: Picture) -> Picture:
    """A paper print [h, w, 4]: white margin, and the shadow it throws, as premultiplied alpha."""
    unit = photo.shape[0] // 24 + 1
    paper = np.pad(photo, ((unit, unit), (unit, unit), (0, 0)), constant_values=0.93)
    margin = 5 * unit
    rgb = np.pad(paper, ((margin, margin), (margin, margin), (0, 0)))
    solid = np.pad(np.ones(paper.shape[:2]), margin)
    shadow = filters.gaussian(np.roll(solid, (unit, unit), (0, 1)), unit) * 0.55
    return np.dstack((rgb, np.maximum(solid, shadow))).astype(np.float32)


def _lay(frame: Picture, layer: Picture, pose: _Pose) -> None:
    """Draw `layer`, [h, w, 4] or the opaque [h, w, 3], over `frame`, in place."""
    height, width = frame.shape[:2]
    x, y = width / 2 + pose.x * height, height / 2 + pose.y * height
    reach = math.ceil(pose.zoom * math.hypot(*layer.shape[:2]) / 2)
    left, right = max(0, int(x) - reach), min(width, int(x) + reach + 1)
    top, bottom = max(0, int(y) - reach), min(height, int(y) + reach + 1)
    if left >= right or top >= bottom:
        return
    middle = transform.AffineTransform(translation=(-layer.shape[1] / 2, -layer.shape[0] / 2))
    place = transform.AffineTransform(
        scale=pose.zoom, rotation=pose.turn, translation=(x - left, y - top)
    )
    placed = transform.warp(
        layer, (middle + place).inverse, output_shape=(bottom - top, right - left), order=3
    ).clip(0, 1)
    part = frame[top:bottom, left:right]
    part *= 1 - placed[..., 3:] if layer.shape[2] == 4 else 0
    part += placed[..., :3]
