"""The report of a run as JSON: what was asked, what it ran on, and what came of it."""

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import onnxruntime

from vr_trt import __version__
from vr_trt.errors import UsageError

if TYPE_CHECKING:
    from vr_trt.runtime.restorer import Report


def report_values(report: "Report") -> dict[str, Any]:
    """The report as docs/events.md describes it: the event `done` and the report file."""
    timing = report.timing
    return {
        "input": str(report.input),
        "output": str(report.output),
        "model": report.model,
        "profile": report.profile,
        "engines": report.engines,
        "width": report.width,
        "height": report.height,
        "frames": report.frames,
        "fps": report.fps,
        "timing": {
            **asdict(timing),
            "overlap": timing.overlap,
            "by_slowest": timing.by_slowest,
            "stages": {name: asdict(stage) for name, stage in report.stages.items()},
        },
        "warnings": list(report.warnings),
    }


def versions() -> dict[str, str]:
    """Versions of everything that takes part in a run on the CPU."""
    libraries = {
        f"ffmpeg {name}": ".".join(map(str, numbers))
        for name, numbers in av.library_versions.items()
        if name in ("libavcodec", "libavformat")
    }
    return {
        "vr-trt": __version__,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "pyav": av.__version__,
        **libraries,
    }


def write_report(path: Path, report: "Report") -> None:
    """Write the report as JSON. UsageError where that is not possible."""
    values = {
        **report_values(report),
        "settings": report.settings,
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the report {path} cannot be written: {error.strerror}") from None
