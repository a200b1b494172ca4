"""The rows of the quality table: each way of running the network against the reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vr_trt.bench.clip_windows import PEAK, Pixels
from vr_trt.bench.picture_measures import psnr
from vr_trt.bench.quality_bars import BY_ROW, JUMP, Bar
from vr_trt.bench.quality_clip import QualityClip
from vr_trt.bench.quality_joins import jump
from vr_trt.bench.quality_network import folded, whole_clip
from vr_trt.bench.quality_run import fp8_model, half_model, restored, through_a_file
from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile
from vr_trt.export.models import ModelFiles
from vr_trt.runtime.entry import entry_at
from vr_trt.runtime.model import Model, find_model

SEED, OTHER_SEED = 0, 1
Said = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row, measured."""

    bar: Bar
    psnr: float  # dB over all frames
    worst: float  # dB of the worst frame
    other_seed: float  # dB over all frames: the reference with other noise

    @property
    def passed(self) -> bool:
        """False for what is not a number, too."""
        return self.worst >= self.bar.least and self.psnr > self.other_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinRow:
    """The change of picture at joins over that inside of windows."""

    row: str
    jump: float
    whole_clip: float  # the same of the reference, which has no joins

    @property
    def passed(self) -> bool:
        """Neither more nor less than the picture's own, and near one."""
        return abs(self.jump - 1) <= JUMP and abs(self.jump / self.whole_clip - 1) <= JUMP


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The fp32 whole-clip unfolded network on one clip."""

    frames: Pixels
    other_seed: float  # dB between two seeds

    @classmethod
    def of(cls, files: ModelFiles, clip: QualityClip) -> "Reference":
        """Run it, with two seeds."""
        chain = whole_clip(files)
        latents = chain.latents(clip.x)
        frames = chain.finish(latents, SEED)
        return cls(frames=frames, other_seed=_psnr(chain.finish(latents, OTHER_SEED), frames))

    def row(self, name: str, frames: Pixels, first: int = 0) -> Row:
        """The row of `frames`, which begin with number `first` of the clip."""
        wanted = self.frames[:, :, first:]
        assert frames.shape == wanted.shape
        each = [_psnr(frames[:, :, i], wanted[:, :, i]) for i in range(wanted.shape[2])]
        return Row(
            bar=BY_ROW[name],
            psnr=_psnr(frames, wanted),
            worst=min(each) if not any(map(np.isnan, each)) else float("nan"),
            other_seed=self.other_seed,
        )


def network_rows(
    files: ModelFiles, reference: Reference, clip: QualityClip, calibration: QualityClip, said: Said
) -> Iterator[Row]:
    """What is done to the network itself, in PyTorch; fp8 is calibrated on another clip."""
    wide = folded(files)
    scales = wide.magnitudes(calibration.x, OTHER_SEED)
    for name, chain in (
        ("folding", wide.chain()),
        ("streamed VAE", wide.streamed()),
        ("cut VAE", wide.cut()),
        ("bf16", folded(files, torch.bfloat16).chain()),
        ("fp8 encoder", wide.e4m3({"encoder": scales["encoder"]})),
        ("fp8 decoder", wide.e4m3({"decoder": scales["decoder"]})),
    ):
        said(name)
        yield reference.row(name, chain.run(clip.x, SEED))


def graph_rows(
    files: ModelFiles,
    reference: Reference,
    clip: QualityClip,
    profile: Profile,
    folder: Path,
    said: Said,
) -> Iterator[Row]:
    """Graphs in ONNX Runtime, through the runtime's own schedule, in one generator window."""
    whole = replace(profile, window=len(clip.frames))
    said("shipped graphs")
    yield reference.row("shipped graphs", restored(Model(find_model("nano")), clip, whole))
    said("exporting in fp16")
    half = half_model(files, folder / "fp16")
    yield reference.row("fp16", restored(half, clip, whole))
    said("fp8 generator")
    narrow = fp8_model(folder / "fp16", files, folder / "fp8")
    yield reference.row("fp8 generator", restored(narrow, clip, whole))


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmRows:
    """A long shot: windows, joins, and being taken up in the middle."""

    rows: tuple[Row, ...]
    joins: tuple[JoinRow, ...]
    taken_up_identical: bool  # to the undisturbed run, bit for bit


def film_rows(
    files: ModelFiles, clip: QualityClip, profile: Profile, folder: Path, said: Said
) -> FilmRows:
    """Everything that needs a shot of many windows."""
    said("long clip: reference, two seeds")
    reference = Reference.of(files, clip)
    model, frames = Model(find_model("nano")), len(clip.frames)
    # As far from the end as from a whole number of windows: any place would do.
    entry = entry_at(frames - 5 * FRAMES_PER_LATENT, profile, 1)
    window = profile.window_latents, profile.overlap
    said("windows")
    found = {"windows": folded(files).windowed(*window, SEED).run(clip.x, SEED)}
    said("as it runs")
    found["as it runs"] = restored(model, clip, profile, SEED)
    said("segments")
    found["segments"] = through_a_file(model, clip, profile, folder / "film.mkv")
    said("taken up")
    late = restored(model, clip, profile, SEED, entry)
    rows = [reference.row(name, x) for name, x in found.items()]
    rows.append(reference.row("taken up", late, entry.first_given))
    own = jump(reference.frames, *window)
    joins = [JoinRow(row=n, jump=jump(x, *window), whole_clip=own) for n, x in found.items()]
    same = np.array_equal(late, found["as it runs"][:, :, entry.first_given :])
    return FilmRows(rows=tuple(rows), joins=tuple(joins), taken_up_identical=same)


def _psnr(one: Pixels, other: Pixels) -> float:
    return psnr(one, other, PEAK)
