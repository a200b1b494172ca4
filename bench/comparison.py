"""Two films, and where there is one a reference, measured frame by frame in constant memory.

With a reference, both are measured against it. Without, the second is measured against the first:
then PSNR, SSIM and ΔE say how far apart they are, not which is better.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from statistics import fmean, median

from vr_trt.bench.picture_measures import Motion, change, colour_difference, psnr, ssim
from vr_trt.bench.rgb_film import Picture01, rgb_frames, size_of
from vr_trt.errors import UsageError
from vr_trt.runtime.counted import counted

Likeness = Callable[[Picture01, Picture01], float]

LIKENESS: dict[str, Likeness] = {
    "psnr": psnr,
    "ssim": ssim,
    "delta_e": colour_difference,
}
NEIGHBOURS = 8  # frames each way that a jump is compared with


@dataclass(kw_only=True, slots=True)
class Measures:
    """What was measured of one film, a value for each frame; changes begin with the second."""

    name: str
    likeness: dict[str, list[float]] = field(default_factory=dict)  # psnr, ssim, delta_e, …
    flicker: list[float] = field(default_factory=list)  # from the second frame on
    change: list[float] = field(default_factory=list)  # from the second frame on

    def jumps(self) -> list[float]:
        """Each frame's change over the usual one around it: a visible join stands out above 1."""
        return [_share(self.change, i) for i in range(len(self.change))]

    def pooled(self) -> dict[str, float]:
        """Means over the frames, the worst tenth of PSNR and SSIM, and the largest jump."""
        means = {name: fmean(values) for name, values in self.likeness.items() if values}
        worst = {
            f"{name}_worst_tenth": _lowest_tenth(self.likeness[name])
            for name in ("psnr", "ssim")
            if self.likeness.get(name)
        }
        moving = {}
        if self.change:
            moving = {
                "flicker": fmean(self.flicker),
                "change": fmean(self.change),
                "largest_jump": max(self.jumps()),
            }
        return means | worst | moving


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What `compare` found."""

    films: tuple[Path, ...]  # A, B and perhaps the reference
    width: int
    height: int
    frames: int
    measures: tuple[Measures, ...]  # A and B against the reference, or B against A
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Everything, for programs: `pooled` figures and `per_frame` lists by film."""
        return {
            "films": [str(path) for path in self.films],
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "notes": list(self.notes),
            "pooled": {of.name: of.pooled() for of in self.measures},
            "per_frame": {
                of.name: {
                    **asdict(of)["likeness"],
                    "flicker": of.flicker,
                    "change": of.change,
                    "jump": of.jumps(),
                }
                for of in self.measures
            },
        }


def compare(
    a: Path,
    b: Path,
    reference: Path | None = None,
    *,
    more: dict[str, Likeness] | None = None,
    on_frame: Callable[[int, Sequence[Picture01]], None] = lambda index, pictures: None,
) -> Comparison:
    """Measure the films `a` and `b` at the size of the reference, or of `b`.

    `more` adds measures of a picture against another; `on_frame` sees each frame's pictures, in the
    order of `films`. Raises UsageError where a film has no frames, for a measure that is made anyway,
    or as the reader does.
    """
    for name in LIKENESS.keys() & (more or {}).keys():
        raise UsageError(f"{name} is measured anyway: ask for others only")
    films = (a, b) if reference is None else (a, b, reference)
    sizes = [size_of(path) for path in films]
    subjects = {1: Measures(name="B")} if reference is None else _both()
    guide = 0 if reference is None else 2
    likeness = LIKENESS | (more or {})
    before: Sequence[Picture01] | None = None
    frames, left_over = 0, [0] * len(films)
    for pictures in _together([rgb_frames(path, sizes[-1]) for path in films], left_over):
        for at, of in subjects.items():
            for name, measure in likeness.items():
                of.likeness.setdefault(name, []).append(measure(pictures[at], pictures[guide]))
        if before is not None:
            motion = Motion(before[guide], pictures[guide])
            for at, of in subjects.items():
                of.flicker.append(motion.flicker(before[at], pictures[at]))
                of.change.append(change(pictures[at], before[at]))
        on_frame(frames, pictures)
        before = pictures
        frames += 1
    if not frames:
        raise UsageError(f"nothing to compare: {', '.join(map(str, films))} share no frame")
    return Comparison(
        films=films,
        width=sizes[-1][0],
        height=sizes[-1][1],
        frames=frames,
        measures=tuple(subjects.values()),
        notes=tuple(_notes(films, sizes, left_over)),
    )


def _both() -> dict[int, Measures]:
    return {0: Measures(name="A"), 1: Measures(name="B")}


def _together(
    streams: Sequence[Iterator[Picture01]], left_over: list[int]
) -> Iterator[tuple[Picture01, ...]]:
    """Frames of all films at once while every one has some; the others are counted."""
    for pictures in zip_longest(*streams):
        if all(picture is not None for picture in pictures):
            yield pictures
        else:
            for i, picture in enumerate(pictures):
                left_over[i] += picture is not None


def _notes(
    films: Sequence[Path], sizes: Sequence[tuple[int, int]], left_over: Sequence[int]
) -> Iterator[str]:
    for path, size, rest in zip(films, sizes, left_over, strict=True):
        if size != sizes[-1]:
            yield (
                f"{path.name} is {size[0]}x{size[1]}: brought to {sizes[-1][0]}x{sizes[-1][1]} "
                "by bicubic"
            )
        if rest:
            more = counted(rest, "frame more, which is", "frames more, which are")
            yield f"{path.name} has {more} left out"


def _share(changes: Sequence[float], i: int) -> float:
    """Change i over the median of its neighbours; 1 where nothing moves."""
    around = [*changes[max(0, i - NEIGHBOURS) : i], *changes[i + 1 : i + 1 + NEIGHBOURS]]
    usual = median(around) if around else changes[i]
    return changes[i] / usual if usual else 1.0


def _lowest_tenth(values: Sequence[float]) -> float:
    """The mean of the worst tenth of the frames."""
    return fmean(sorted(values)[: max(1, len(values) // 10)])
