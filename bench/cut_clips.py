"""Clips with known cuts, made by a script: what the detector of shots is scored on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 108, 192
Picture = NDArray[np.float32]  # [H, W] levels of 255
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class CutClip:
    """Luma pictures and the frames at which a new shot begins."""

    kind: str
    frames: list[NDArray[np.uint8]]  # [H, W] each
    cuts: tuple[int, ...]


def scene(random: Random) -> Picture:
    """A still three times as large as a frame: texture at several scales, and edges."""
    rows, columns = 3 * HEIGHT, 3 * WIDTH
    picture = np.zeros((rows, columns), np.float32)
    for cells in (3, 6, 12, 40, 120):
        noise = random.normal(0, cells ** random.uniform(-0.9, -0.3), (cells, cells + 4))
        picture += _enlarged(noise.astype(np.float32), rows, columns)
    y, x = np.mgrid[0:rows, 0:columns]
    for _ in range(random.integers(10, 60)):
        top, left = random.integers(0, rows), random.integers(0, columns)
        height, width = random.integers(10, 120, 2)
        inside = (abs(y - top) < height) & (abs(x - left) < width)
        if random.random() < 0.5:
            inside = ((y - top) / height) ** 2 + ((x - left) / width) ** 2 < 1
        picture[inside] += random.normal(0, 0.7)
    low, high = np.percentile(picture, [2, 98])
    dark, light = sorted(random.uniform(10, 245, 2))
    if light - dark < 60:
        dark, light = 40.0, 180.0
    return ((picture - low) / (high - low) * (light - dark) + dark).clip(0, 255)


def shot(random: Random, frames: int, speed: float = 1.0) -> list[Picture]:
    """A camera that moves over a scene, with something moving in it; `speed` in pixels a frame."""
    world = scene(random)
    angle, zoom = random.uniform(0, 2 * np.pi), random.uniform(-0.004, 0.004)
    step = speed * np.array([np.sin(angle) * 0.5, np.cos(angle)])
    thing = random.uniform(0, 255) + random.normal(0, 30, (30, 30)).astype(np.float32)
    way, start = random.uniform(-3, 3, 2), random.uniform(10, 70, 2)
    return [
        _with_thing(_view(world, i * step, 1 + zoom * i), thing, start + way * i)
        for i in range(frames)
    ]


def _enlarged(picture: Picture, rows: int, columns: int) -> Picture:
    """Linear interpolation to [rows, columns]."""
    y = np.linspace(0, picture.shape[0] - 1, rows)
    x = np.linspace(0, picture.shape[1] - 1, columns)
    lines = np.array([np.interp(y, np.arange(len(column)), column) for column in picture.T]).T
    return np.array([np.interp(x, np.arange(len(line)), line) for line in lines], np.float32)


def _view(world: Picture, offset: NDArray[np.float64], zoom: float) -> Picture:
    """The frame that a camera sees; the world repeats at its ends."""
    rows = np.floor((np.arange(HEIGHT) - HEIGHT / 2) / zoom + HEIGHT * 1.5 + offset[0])
    columns = np.floor((np.arange(WIDTH) - WIDTH / 2) / zoom + WIDTH * 1.5 + offset[1])
    rows, columns = rows.astype(int) % world.shape[0], columns.astype(int) % world.shape[1]
    return world[np.ix_(rows, columns)]


def _with_thing(picture: Picture, thing: Picture, at: NDArray[np.float64]) -> Picture:
    top, left = int(at[0]) % (HEIGHT - 30), int(at[1]) % (WIDTH - 30)
    picture[top : top + 30, left : left + 30] = thing
    return picture


def hard_cuts(random: Random) -> tuple[list[Picture], list[int]]:
    """Four to six shots, some of them short, some dark."""
    frames: list[Picture] = []
    cuts = []
    for number in range(random.integers(4, 7)):
        part = shot(random, int(random.integers(8, 30)), random.uniform(0, 4))
        if random.random() < 0.25:
            part = [picture * 0.35 for picture in part]
        if number:
            cuts.append(len(frames))
        frames += part
    return frames, cuts


def fades(random: Random) -> tuple[list[Picture], list[int]]:
    """Out to black or white, and in to another scene."""
    length, level = int(random.integers(8, 24)), random.choice([0.0, 16.0, 235.0])
    one, two = shot(random, 40), shot(random, 40)
    for i in range(length):
        share = np.float32((i + 1) / length)
        one[40 - length + i] = one[40 - length + i] * (1 - share) + level * share
        two[i] = two[i] * share + level * (1 - share)
    black = [np.full_like(one[0], level)] * int(random.integers(0, 6))
    return one + black + two, []


def dissolves(random: Random) -> tuple[list[Picture], list[int]]:
    """One scene becomes another over 8 frames or more."""
    length = int(random.integers(8, 24))
    one, two = shot(random, 30 + length), shot(random, 30 + length)
    mixed = [
        one[30 + i] * (1 - (i + 1) / (length + 1)) + two[i] * ((i + 1) / (length + 1))
        for i in range(length)
    ]
    return one[:30] + mixed + two[length:], []


def flashes(random: Random) -> tuple[list[Picture], list[int]]:
    """A photographer's light, one to three frames, a few times."""
    frames = shot(random, 80, random.uniform(0, 3))
    for at in random.choice(np.arange(6, 74, 8), 4, replace=False):
        for i in range(random.integers(1, 4)):
            frames[at + i] = frames[at + i] * random.uniform(0.2, 1) + random.uniform(90, 220)
    return frames, []


def fast_pans(random: Random) -> tuple[list[Picture], list[int]]:
    """A camera that is thrown round: up to a quarter of the picture a frame."""
    world = scene(random)
    speed = random.uniform(10, 48)
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([np.sin(angle) * 0.3, np.cos(angle)]) * speed
    start, length = 15, int(random.integers(5, 20))
    at, frames = np.zeros(2), []
    for i in range(60):
        moving = start <= i < start + length
        ease = min(1.0, (i - start + 1) / 2, (start + length - i) / 2) if moving else 0.0
        at = at + turn * ease
        frames.append(_view(world, at, 1.0))
    return frames, []


def shakes(random: Random) -> tuple[list[Picture], list[int]]:
    """A hand-held camera, and a large thing that passes close by."""
    world, passing = scene(random), scene(random)
    frames = []
    for i in range(60):
        picture = _view(world, random.normal(0, 4, 2), 1 + 0.02 * random.normal())
        left = -120 + 14 * (i - 15)
        if -120 < left < WIDTH:
            here = slice(max(0, left), max(0, min(WIDTH, left + 120)))
            picture[20:, here] = passing[20:HEIGHT, here]
        frames.append(picture)
    return frames, []


KINDS: dict[str, Callable[[Random], tuple[list[Picture], list[int]]]] = {
    "hard cuts": hard_cuts,
    "fades": fades,
    "dissolves": dissolves,
    "flashes": flashes,
    "fast pans": fast_pans,
    "shakes": shakes,
}


def cut_clips(seeds: range) -> Iterator[CutClip]:
    """One clip of each kind for each seed, with grain."""
    for seed in seeds:
        for number, (kind, make) in enumerate(KINDS.items()):
            random = np.random.default_rng([seed, number])
            pictures, cuts = make(random)
            grain = random.uniform(0, 6)
            frames = [
                (picture + random.normal(0, grain, picture.shape)).clip(0, 255).astype(np.uint8)
                for picture in pictures
            ]
            yield CutClip(kind, frames, tuple(cuts))
