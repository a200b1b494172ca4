"""Calibrate a generator for fp8 on real clips, and put it through its gate.

    python -m vr_trt.bench.fp8_gate [CLIP ...] [--model nano] [--profile 360p] [--out FILE]

Without a clip, the demo clip is made and used. Every other window of the clips is calibrated on, the
rest is judged: the wide graphs (fp16) and the quantised ones run in ONNX Runtime on the CPU, from
the same latents and noise, and again wide with another seed; all three are decoded. The table and
the verdict go beside the weights (`--table` for elsewhere); JSON is the last line. With `--study`,
methods of calibration and the linears' sensitivity are compared too.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vr_trt.bench.clip_windows import PEAK, ClipWindow, clip_windows, demo_clip
from vr_trt.bench.machine import command_line, describe
from vr_trt.bench.whole_file import write_json
from vr_trt.engines.gate import Gate, Score, Window
from vr_trt.engines.profiles import Profile, find_profile
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.export.calibrate import Judge, Sample, amax_of, observe
from vr_trt.export.calibration_table import (
    RECIPE,
    CalibrationTable,
    Method,
    gate_path,
    table_path,
)
from vr_trt.export.export_model import ExportPlan, export_model
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fp8_network import quantise_network
from vr_trt.export.models import ModelFiles, find_model_files
from vr_trt.export.quantise_folder import quantise_folder
from vr_trt.export.weights_hashes import hash_file
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.model import Model, read_manifest
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import START_LATENTS, DecodeStream

SEED, OTHER_SEED = 0, 1
EXACT = 200.0  # dB, of no error at all
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationRequest:
    """What to calibrate, and on what."""

    files: ModelFiles
    profile: Profile
    clips: Sequence[Path]
    windows: int = 4  # of each clip, at most
    method: Method = "amax"
    table: Path | None = None  # if not beside the weights
    wide: Path | None = None  # the model exported in fp16 for every size, if it is there
    short_side: int | None = None  # pixels, if not the profile's
    study: bool = False

    @property
    def path(self) -> Path:
        return self.table or table_path(self.files.generator_file)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """What came out; both are on disk."""

    table: Path
    gate: Gate
    study: Mapping[str, Any]


def calibrate_and_judge(
    request: CalibrationRequest, said: Callable[[str], None] = lambda line: None
) -> Calibrated:
    """Write the table and the gate's verdict of `request`."""
    with tempfile.TemporaryDirectory() as folder:
        wide, narrow = request.wide or Path(folder, "wide"), Path(folder, "fp8")
        if request.wide is None:
            said("exporting the wide graphs")
            export_model(ExportPlan(model=request.files, precision="fp16"), wide)
        model = Model(wide)
        windows = _windows(request, model, said)
        said(f"calibrating on {len(windows[::2])} windows")
        table, study = _table(request, windows[::2])
        table.write(request.path)
        quantise_folder(wide, narrow, request.path)
        gate = judge(model, narrow, windows[1::2], said)
    path = gate_path(request.path)
    path.write_text(json.dumps(gate.as_json(), indent=1) + "\n", encoding="utf-8")
    return Calibrated(table=request.path, gate=gate, study=study)


def _windows(
    request: CalibrationRequest, model: Model, said: Callable[[str], None]
) -> list[ClipWindow]:
    windows: list[ClipWindow] = []
    latents = request.profile.window_latents
    for clip in request.clips:
        said(f"encoding {clip.name}")
        short_side = request.short_side or request.profile.short_side
        windows += clip_windows(clip, model, short_side, latents, request.windows)
    if len(windows) < 2:
        raise UsageError("one window to calibrate on and none to judge: give longer or more clips")
    return windows


def _table(
    request: CalibrationRequest, windows: Sequence[ClipWindow]
) -> tuple[CalibrationTable, dict[str, Any]]:
    """The table of `windows`, with what is too sensitive left wide."""
    files = request.files
    device, dtype = (
        ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    )
    folded = fold_generator(
        files.generator, files.load_generator(), files.load_text(), dtype=dtype
    ).to(device)
    samples = [_sample(window) for window in windows]
    found = observe(folded, samples)
    table = CalibrationTable(
        model=files.name,
        weights=hash_file(files.generator_file),
        method=request.method,
        clips=tuple(dict.fromkeys(window.clip for window in windows)),
        windows=len(windows),
        amax=amax_of(found, request.method),
    )
    judge = Judge.of(folded, samples)
    study: dict[str, Any] = {}
    if request.study:
        tables = {m: replace(table, method=m, amax=amax_of(found, m)) for m in get_args(Method)}
        errors = {m: judge.error(quantise_network(folded, t)) for m, t in tables.items()}
        study["latents_db_by_method"] = {m: _db(judge.power, e) for m, e in errors.items()}
        study["latents_db_of_another_seed"] = _db(judge.power, judge.other_seed())
        alone = judge.sensitivity(table)
        study["latents_db_of_one_linear"] = {n: _db(judge.power, e) for n, e in alone.items()}
    return judge.widened(table), study


def _sample(window: ClipWindow) -> Sample:
    latent = torch.from_numpy(window.latents)
    _, channels, frames, *sides = latent.shape
    noises = [
        window_noise(seed, window.first, frames, (sides[0], sides[1]), channels)
        for seed in (SEED, OTHER_SEED)
    ]
    return Sample(latent, *map(torch.from_numpy, noises))


def judge(
    model: Model,
    narrow: Path,
    windows: Sequence[ClipWindow],
    said: Callable[[str], None] = lambda line: None,
) -> Gate:
    """Compare the graphs in the folder `narrow` with those of the wide `model`, over `windows`."""
    fp8 = read_manifest(narrow).fp8 or {}
    rows = []
    for window in windows:
        said(f"judging {window.clip}, latents from {window.first}")
        rows.append(_judged(model, narrow, window))
    return Gate(
        model=model.manifest.model,
        calibration=fp8.get("calibration", ""),
        recipe=RECIPE,
        windows=tuple(rows),
    )


def _judged(model: Model, narrow: Path, window: ClipWindow) -> Window:
    quantised = Model(narrow, judging=True)
    wide = _restored(model, window, SEED)
    frames = decoded(model, wide)
    scores: dict[str, dict[str, float]] = {"generator": {}, "frames": {}}
    for name, other in (
        ("fp8", _restored(quantised, window, SEED)),
        ("other_seed", _restored(model, window, OTHER_SEED)),
    ):
        scores["generator"][name] = _db(float(np.square(wide).mean()), _error(other, wide))
        scores["frames"][name] = _db(PEAK**2, _error(decoded(model, other), frames))
    return Window(
        clip=window.clip,
        first_latent=window.first,
        **{name: Score(**pair) for name, pair in scores.items()},
    )


def _restored(model: Model, window: ClipWindow, seed: int) -> Array:
    """The generator's latents [1, C, T, h, w]; its session is not kept: two networks would be."""
    restored = GeneratorStage(model, seed).restore(window.first, window.latents)
    model.drop("generator")
    return restored


def decoded(model: Model, latents: Array) -> Array:
    """Frames [1, 3, F, H, W], as a viewer can see them, of a window's latents."""
    stream = DecodeStream(model, StatePool())
    cuts = range(START_LATENTS, latents.shape[2])
    parts = [latents[:, :, :START_LATENTS], *(latents[:, :, i : i + 1] for i in cuts)]
    return np.concatenate([stream.push(part) for part in parts], 2).clip(-1, 1)


def _error(a: Array, b: Array) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def _db(power: float, error: float) -> float:
    """Decibels, NaN if the error is, which passes no gate."""
    if error == 0:
        return EXACT
    return min(round(float(10 * np.log10(power / error)), 2), EXACT)  # NaN first: it stays


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--profile", default="360p")
    parser.add_argument("--windows", type=int, default=4, help="of each clip, at most")
    parser.add_argument("--method", choices=get_args(Method), default="amax")
    parser.add_argument("--table", type=Path, help="where to write it, if not beside the weights")
    parser.add_argument("--wide", type=Path, help="its export with --profile any, in fp16")
    parser.add_argument("--short-side", type=int, help="pixels, if not the profile's")
    parser.add_argument("--study", action="store_true", help="compare methods and linears")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            request = CalibrationRequest(
                files=find_model_files(given.model),
                profile=find_profile(given.profile),
                clips=given.clips or [demo_clip(Path(folder), frames=93)],  # four windows
                windows=given.windows,
                method=given.method,
                table=given.table,
                wide=given.wide,
                short_side=given.short_side,
                study=given.study,
            )
            made = calibrate_and_judge(request, lambda line: print(line, file=sys.stderr))
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    result = {"machine": describe(), "command": command_line(), "profile": given.profile}
    result |= {"gate": made.gate.as_json(), "study": dict(made.study)}
    if given.out:
        write_json(given.out, result)
    print(made.gate, file=sys.stderr)
    print(json.dumps(result))
    return 0 if made.gate.passed else 3


if __name__ == "__main__":
    sys.exit(main())
