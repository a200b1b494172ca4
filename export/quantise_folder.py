"""Quantise the generator of an export that exists: no weights, no tracing, no memory to speak of.

    python -m vr_trt.export.quantise_folder GRAPHS OUT --table FILE

The other networks' files are taken over as they are, by a second name where the disk allows it.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir

from vr_trt.errors import ModelError, UsageError, VrTrtError
from vr_trt.export.calibration_table import find_calibration
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.quantise import quantise
from vr_trt.export.weights_hashes import hash_file

MANIFEST = "manifest.json"
DATA = "generator.bin"


def quantise_folder(graphs: Path, out: Path, table: Path) -> Path:
    """Write the export in `graphs`, its generator in E4M3, to `out`; the manifest's path.

    ModelError if `graphs` is no export or `table` is of other weights, UsageError if `out` is there.
    """
    manifest = _read(graphs)
    calibration = find_calibration(graphs, next(iter(manifest["weights"].values())), table)
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{out} is there already: give a new folder") from None
    stages = {s: f for s, f in manifest["stages"].items() if s.startswith("generator")}
    with SharedWeights(out / DATA) as weights:
        for file in stages.values():
            model = ir.load(graphs / file)
            quantise(model, calibration.table)
            model.metadata_props["precision"] = "fp8"
            weights.save(model, out / file)
    for name in manifest["sha256"].keys() - {*stages.values(), DATA}:
        _link_or_copy(graphs / name, out / name)
    hashes = {path.name: hash_file(path) for path in sorted(out.iterdir())}
    made = {**manifest, "precision": "fp8", "sha256": hashes, "fp8": calibration.as_json()}
    path = out / MANIFEST
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return path


def _read(graphs: Path) -> dict[str, Any]:
    path = graphs / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"precision", "sha256", "stages", "weights"} - manifest.keys()
    except (AttributeError, OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}; export the model first") from None
    if missing or manifest["precision"] == "fp8" or "generator" not in manifest["stages"]:
        raise ModelError(f"{graphs} holds no wide generator: export the model in fp16 or bf16")
    return manifest


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("graphs", type=Path, help="an export in fp16 or bf16")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--table", type=Path, required=True, help="the calibration of its weights")
    given = parser.parse_args()
    try:
        print(quantise_folder(given.graphs, given.out, given.table))
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
