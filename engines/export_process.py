"""Exporting a model in a process of its own, which gives its memory back before engines are built."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vr_trt.engines.cache import Canvas
from vr_trt.engines.child import Moment, lines, resident_bytes
from vr_trt.engines.chips import check_precision
from vr_trt.errors import MemoryBudgetError, ModelError, UsageError
from vr_trt.export.calibration_table import Calibration, find_calibration
from vr_trt.export.weights_hashes import known_hash

if TYPE_CHECKING:
    from vr_trt.export.models import ModelFiles

_REMEDY = "pip install 'vr-trt[export]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What to export."""

    model: str
    profile: str
    canvas: Canvas
    precision: str
    cut: bool  # the VAE by resolution
    networks: Sequence[str]
    generator_file: Path | None
    vae_file: Path | None

    def arguments(self, folder: Path) -> list[str]:
        """Of `vr-trt`."""
        files = {"--generator-file": self.generator_file, "--vae-file": self.vae_file}
        return [
            "export",
            f"--out={folder}",
            f"--model={self.model}",
            f"--profile={self.profile}",
            f"--size={self.canvas}",
            f"--precision={self.precision}",
            "--cut" if self.cut else "--whole",
            *(f"--network={network}" for network in self.networks),
            *(f"{option}={path}" for option, path in files.items() if path),
        ]


def weights_hashes(export: Export) -> dict[str, str]:
    """The hashes of the weights that would be exported.

    ModelError for an unknown model or precision, absent weights, or where PyTorch is missing.
    """
    check_precision(export.precision)
    for package in ("torch", "onnx", "onnxscript", "safetensors"):
        if find_spec(package) is None:
            raise ModelError(f"{package}, which exports models, is not installed: {_REMEDY}")
    return _model_files(export).sha256()


def calibration_of(export: Export) -> Calibration | None:
    """What an export in fp8 stands on beside the weights; None for other precisions.

    ModelError where there is no calibration of these weights.
    """
    if export.precision != "fp8" or "generator" not in export.networks:
        return None
    generator = _model_files(export).generator_file
    return find_calibration(generator, known_hash(generator))


def _model_files(export: Export) -> "ModelFiles":
    from vr_trt.export.models import find_model_files

    try:
        return find_model_files(export.model, export.generator_file, export.vae_file)
    except UsageError as error:
        raise ModelError(str(error)) from None


def export_in_process(export: Export, folder: Path, watch: Callable[[Moment], None]) -> None:
    """Write `export` into `folder`; ModelError or MemoryBudgetError with the exporter's own line."""
    start, doing, last = time.monotonic(), "starting", ""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vr_trt", *export.arguments(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        for line in lines(process.stderr):
            last = line.decode(errors="replace").strip() or last
            stage, _, what = last.partition(": ")
            doing = f"{what} {stage}" if what == "tracing" else doing
            watch(
                Moment(
                    doing=doing,
                    seconds=time.monotonic() - start,
                    bytes=resident_bytes(process.pid),
                )
            )
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    if code == 0:
        return
    if code in (MemoryBudgetError.exit_code, -9, 137):
        raise MemoryBudgetError(
            f"exporting {export.model} at {export.canvas} ran out of memory: free memory, or "
            "export a smaller profile"
        )
    raise ModelError(last.removeprefix("vr-trt: ") or f"exporting {export.model} failed")
