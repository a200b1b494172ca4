"""A pool of sharp and degraded clips on disk, made once, from which training draws its batches."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vr_trt.export.nano.data import Split, make_clip
from vr_trt.export.nano.degrade import Degradation, degrade, draw, draw_any, draw_light

Damage = Literal["mixed", "any", "light"]
_DRAWS: dict[Damage, Callable[[np.random.Generator], Degradation]] = {
    "mixed": draw,
    "any": draw_any,
    "light": draw_light,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """What a pool holds; two pools of one spec are equal."""

    seed: int = 1
    split: Split = "train"
    clips: int = 1600
    frames: int = 9
    size: int = 128
    damage: Damage = "mixed"
    version: int = 2  # counts the changes of what is drawn, after which a pool is made anew


@dataclass(frozen=True, slots=True)
class Pool:
    """Memory-mapped clips, each uint8 [N, T, H, W, 3]."""

    sharp: NDArray[np.uint8]
    degraded: NDArray[np.uint8]

    def batch(
        self,
        seed: tuple[int, ...],
        clips: int,
        frames: int,
        size: int,
        speed: int = 1,
        pan: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops of random clips, flipped and turned at random; every `speed`-th frame.

        With `pan` a crop moves over its clip, by as many pixels a frame at most. Returns sharp and
        degraded, each float32 [clips, 3, frames, size, size] in -1..1; a function of `seed` alone,
        so that a resumed training sees the batches it would have seen.
        """
        rng = np.random.default_rng(seed)
        pairs = [self._crop(rng, frames, size, speed, pan) for _ in range(clips)]
        sharp, degraded = (torch.stack(side) for side in zip(*pairs, strict=True))
        return sharp, degraded

    def _crop(
        self, rng: np.random.Generator, frames: int, size: int, speed: int, pan: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count, length, height, width, _ = self.sharp.shape
        clip = int(rng.integers(count))
        span = speed * (frames - 1) + 1
        first = int(rng.integers(length - span + 1))
        top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        flips = tuple(axis for axis in (0, 1, 2) if rng.random() < 0.5)
        turn = rng.random() < 0.5
        places = [(top, left)] * frames
        if pan:
            rooms = height - size, width - size
            places = list(zip(*(_path(rng, frames, room, pan) for room in rooms), strict=True))
        result = []
        for source in (self.sharp, self.degraded):
            views = [
                source[clip, first + speed * index, y : y + size, x : x + size]
                for index, (y, x) in enumerate(places)
            ]
            part = np.flip(np.stack(views), flips)
            part = part.transpose(0, 2, 1, 3) if turn else part
            video = torch.from_numpy(part.copy()).permute(3, 0, 1, 2)
            result.append(video.float() / 127.5 - 1)
        return result[0], result[1]


def _path(rng: np.random.Generator, frames: int, room: int, pan: int) -> list[int]:
    """Places 0..`room` of a crop along one axis, at a steady pace that is often slow."""
    pace = pan * rng.uniform(-1, 1) * rng.random()
    way = np.round(pace * np.arange(frames)).astype(int).clip(-room, room)
    start = int(rng.integers(-way.min(), room - way.max() + 1))
    return [start + int(step) for step in way]


def open_pool(folder: Path, spec: PoolSpec) -> Pool:
    """The pool of `spec` under `folder`, made first where it is not there or is another one."""
    record = folder / "pool.json"
    if not record.exists() or json.loads(record.read_text()) != asdict(spec):
        _make(folder, spec, record)
    sides = (np.load(folder / f"{side}.npy", mmap_mode="r") for side in ("sharp", "degraded"))
    return Pool(*sides)


def _make(folder: Path, spec: PoolSpec, record: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)  # a pool is valid only while its record is there
    shape = (spec.clips, spec.frames, spec.size, spec.size, 3)
    sharp, degraded = (
        np.lib.format.open_memmap(folder / f"{side}.npy", "w+", np.uint8, shape)
        for side in ("sharp", "degraded")
    )
    for index in range(spec.clips):
        rng = np.random.default_rng((spec.seed, index))
        sharp[index] = make_clip(rng, spec.split, spec.frames, spec.size)
        degraded[index] = degrade(sharp[index], _DRAWS[spec.damage](rng))
    sharp.flush()
    degraded.flush()
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(spec)))
    os.replace(partial, record)
