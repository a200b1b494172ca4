"""How well the detector of shots does: `python -m vr_trt.bench.cuts`.

The clips are made by bench/cut_clips.py. The detector's numbers were chosen on seeds 0 to 49; the
score that counts is that of other seeds.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vr_trt.bench.cut_clips import CutClip, cut_clips
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.scene_cuts import mark_cuts

GREY = PixelFormat(
    bits=8, layout="gray", chroma=(1, 1), matrix="bt709", full_range=False, siting="left"
)


@dataclass(frozen=True, slots=True)
class Score:
    """Cuts that were found, cuts that were not, and frames taken for one."""

    found: int = 0
    missed: int = 0
    false: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.found + other.found, self.missed + other.missed, self.false + other.false)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find or to miss."""
        wrong = self.missed + self.false
        return 2 * self.found / (2 * self.found + wrong) if self.found or wrong else 1.0


def score(clip: CutClip) -> Score:
    """Found frames must be exactly the true ones."""
    frames = (Frame((picture, picture, picture), i, 1) for i, picture in enumerate(clip.frames))
    found = {frame.pts for frame in mark_cuts(frames, GREY) if frame.starts_shot}
    true = set(clip.cuts)
    return Score(len(found & true), len(true - found), len(found - true))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the score of each kind of clip and of all."""
    parser = argparse.ArgumentParser(description="Score the detector of shots.")
    parser.add_argument("--seeds", type=int, nargs=2, default=(200, 220), metavar=("FROM", "TO"))
    chosen = parser.parse_args(arguments)
    scores: dict[str, Score] = {}
    clips: Counter[str] = Counter()
    for clip in cut_clips(range(*chosen.seeds)):
        scores[clip.kind] = scores.get(clip.kind, Score()) + score(clip)
        clips[clip.kind] += 1
    scores["all"] = sum(scores.values(), Score())
    clips["all"] = clips.total()
    print(f"{'kind':<10} clips  found  missed  false     F1")
    for kind, one in scores.items():
        print(
            f"{kind:<10} {clips[kind]:>5} {one.found:>6} {one.missed:>7} {one.false:>6} {one.f1:>6.3f}"
        )


if __name__ == "__main__":
    main()
