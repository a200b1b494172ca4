"""What deployment costs in quality, row by row, on nano: `vr-trt bench quality`.

Folding, precisions, the streamed and the cut VAE, windows, joins and resumed runs against the fp32
whole-clip unfolded network, beside what another seed of the noise changes. A row that is below its
bar (bench/quality_bars.py) fails the command. The result names the weights that it is of: a test
holds it to those of the repository.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from vr_trt.bench.demo_scene import Scene
from vr_trt.bench.machine import describe
from vr_trt.bench.quality_bars import BARS, JUMP
from vr_trt.bench.quality_clip import quality_clip
from vr_trt.bench.quality_rows import (
    FilmRows,
    JoinRow,
    Reference,
    Row,
    film_rows,
    graph_rows,
    network_rows,
)
from vr_trt.engines.profiles import find_profile
from vr_trt.export.calibration_table import table_path
from vr_trt.export.models import ModelFiles, find_model_files
from vr_trt.export.weights_hashes import hash_file
from vr_trt.runtime.model import find_model

FORMAT = 1
PROFILE = "360p"  # whose windows; the clips are smaller
CLIP = Scene(width=256, height=144, frames=25)
CALIBRATION = Scene(width=256, height=144, frames=9, seed=5)
FILM = Scene(width=128, height=64, frames=401)  # so long that a run taken up begins in the middle


def measure(said: Any = lambda line: None) -> dict[str, Any]:
    """Every row, as JSON would hold it. ModelError where nano's files do not fit together."""
    files, profile, start = find_model_files("nano"), find_profile(PROFILE), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, calibration = quality_clip(folder, CLIP), quality_clip(folder, CALIBRATION)
        said("reference, two seeds")
        reference = Reference.of(files, clip)
        rows = [*network_rows(files, reference, clip, calibration, said)]
        rows += graph_rows(files, reference, clip, profile, folder, said)
        film = film_rows(files, quality_clip(folder, FILM), profile, folder, said)
    rows = sorted([*rows, *film.rows], key=lambda row: BARS.index(row.bar))
    return {
        "format": FORMAT,
        "machine": describe(),
        "command": "vr-trt bench quality",
        "seconds": round(time.perf_counter() - start),
        "model": "nano",
        "weights": digests(files),
        "profile": profile.name,
        "clips": {"rows": asdict(CLIP), "film": asdict(FILM)},
        "passed": all_passed(rows, film),
        "rows": [_row_json(row) for row in rows],
        "joins": [_join_json(join) for join in film.joins],
        "taken_up_identical": film.taken_up_identical,
    }


def all_passed(rows: Sequence[Row], film: FilmRows) -> bool:
    """Whether every bar has its row, and every row reaches it."""
    return (
        [row.bar for row in rows] == list(BARS)
        and all(row.passed for row in rows)
        and all(join.passed for join in film.joins)
        and film.taken_up_identical
    )


def digests(files: ModelFiles) -> dict[str, str]:
    """What the result depends on: weights, fp8 table, and the graphs that ship."""
    paths = [files.generator_file, files.vae_file, table_path(files.generator_file)]
    return {path.name: hash_file(path) for path in paths} | {
        "shipped manifest": hash_file(find_model("nano") / "manifest.json")
    }


def table(document: Mapping[str, Any]) -> Table:
    """The rows for people."""
    shown = Table(title=f"nano against its fp32 whole-clip network, dB ({document['seconds']} s)")
    shown.add_column("row")
    for column in ("PSNR", "worst frame", "bar", "another seed"):
        shown.add_column(column, justify="right")
    shown.add_column("")
    for row in document["rows"]:
        figures = (row["psnr"], row["worst"], row["least"], row["other_seed"])
        shown.add_row(row["row"], *(f"{x:.1f}" for x in figures), _verdict(row["passed"]))
    shown.add_section()
    for join in document["joins"]:
        shown.add_row(
            f"jump at joins, {join['row']}",
            f"{join['jump']:.3f}",
            "",
            f"1 ± {JUMP}",
            f"whole clip {join['whole_clip']:.3f}",
            _verdict(join["passed"]),
        )
    same = document["taken_up_identical"]
    shown.add_row("taken up is the same, bit for bit", "yes" if same else "no", *["", "yes", ""])
    return shown


def _verdict(passed: bool) -> str:
    return "ok" if passed else "FAILED"


def _row_json(row: Row) -> dict[str, Any]:
    figures = {name: round(getattr(row, name), 2) for name in ("psnr", "worst", "other_seed")}
    return {**asdict(row.bar), **figures, "passed": row.passed}


def _join_json(join: JoinRow) -> dict[str, Any]:
    figures = {name: round(getattr(join, name), 4) for name in ("jump", "whole_clip")}
    return {"row": join.row, **figures, "within": JUMP, "passed": join.passed}
