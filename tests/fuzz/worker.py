"""Reads mutated files in a process of its own: `python -m tests.fuzz.worker MODEL`.

One JSON line in, `{"way": …, "path": …}`; one out, `{"outcome": …, "said": …}`. What kills this
process, or keeps it busy for too long, is for the parent to see.
"""

import json
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from vr_trt.cli import exit_code
from vr_trt.errors import VrTrtError
from vr_trt.runtime.batch import Batch
from vr_trt.runtime.copy_plan import plan_copy, plan_streams
from vr_trt.runtime.cut_list import read_cut_list
from vr_trt.runtime.deinterlace import deinterlaced
from vr_trt.runtime.journal import Journal
from vr_trt.runtime.manifest import Asked, read_manifest_jobs
from vr_trt.runtime.model import read_manifest
from vr_trt.runtime.pipe import DASH
from vr_trt.runtime.reader import Reader, can_seek, probe

ASKED = Asked(profile="360p")
GIB = 1 << 30
MEMORY = 6 * GIB  # of address space: a file of a few kilobytes must not ask for more
DOCUMENTED = (0, 2, 3, 4, 5)  # exit codes: 1 is our own mistake, 130 nobody's here
MOST_FRAMES = 2000


def read_media(path: Path) -> str:
    """Everything that happens to an input before a network sees it, and its other streams."""
    info = probe(path)
    if info.interlaced:
        info = deinterlaced(info, "frame")
    with Reader(path, info) as reader:
        frames = sum(1 for _ in zip(reader, range(MOST_FRAMES), strict=False))
        lines = reader.warnings
    can_seek(info)
    if not info.is_image:
        for muxer in ("mp4", "matroska"):
            plan_copy(path, muxer, audio=True)
    return f"{frames} frames, {len(lines)} warnings"


def read_piped(path: Path) -> str:
    """The same from standard input, with the other streams put aside."""
    with path.open("rb") as file:
        os.dup2(file.fileno(), 0)
    info = probe(DASH)
    if info.pipe.carries(live=False):
        info.pipe.put_aside()
    for muxer in ("mp4", "matroska"):
        plan_streams(info.pipe.container, info.pipe.stream, {}, muxer, audio=True)
    with Reader(DASH, info) as reader:
        frames = sum(1 for _ in zip(reader, range(MOST_FRAMES), strict=False))
        info.pipe.end()
        if info.others is not None:
            plan_copy(info.others, "matroska", audio=True)
    return f"{frames} frames"


def run_whole(path: Path, model: str) -> str:
    """The command line from the file to the finished one."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        image = path.suffix in (".png", ".jpg", ".webp", ".tiff", ".bmp")
        output = Path(name, "out.png" if image else "out.mkv")
        arguments = ["run", str(path), "-o", str(output), "--profile", "360p", "--model", model]
        said, shown = StringIO(), StringIO()
        with redirect_stderr(said), redirect_stdout(shown):
            code = exit_code([*arguments, "--deinterlace", "frame"])
        lines = said.getvalue().splitlines()
        if code not in DOCUMENTED:
            raise AssertionError(f"exit code {code}: {lines[-3:]}")
        if code and (len(lines) != 1 or not lines[0].startswith("vr-trt: ")):
            raise AssertionError(f"not one line: {lines[-5:]}")
        left = sorted(p.name for p in Path(name).iterdir())
        if left != ([output.name] if code == 0 else []):
            raise AssertionError(f"exit code {code} and {left} is left")
        return f"exit {code}"


def read_journal(path: Path) -> str:
    """As a run with --resume does, before it works."""
    output = path.parent.with_name(path.parent.name[1:].removesuffix(".resume"))
    journal = Journal(output, {"input": "abc", "seed": 1})
    try:
        journal.resume()
        return f"{len(journal.segments)} segments, {journal.frames} frames"
    finally:
        journal.release()


WAYS: dict[str, Callable[[Path], object]] = {
    "media": read_media,
    "piped": read_piped,
    "cut_list": read_cut_list,
    "journal": read_journal,
    "manifest": lambda path: read_manifest(path.parent),
    "batch_list": lambda path: read_manifest_jobs(path, ASKED, path.parent),
    "batch_objects": lambda path: read_manifest_jobs(path, ASKED, path.parent),
    "batch_report": lambda path: Batch([], path, overwrite=False),
}


def outcome(way: str, path: Path, model: str) -> dict[str, str]:
    """What came of one file: fine, refused in one line, out of memory, or wrong."""
    try:
        done = run_whole(path, model) if way == "whole" else WAYS[way](path)
    except VrTrtError as error:
        line = str(error)
        if "\n" in line or not line.strip():
            return {"outcome": "wrong", "said": f"not one line: {line!r}"}
        return {"outcome": type(error).__name__, "said": line}
    except MemoryError:
        return {"outcome": "out of memory", "said": ""}
    except Exception:  # noqa: BLE001 - whatever else is raised is what is looked for
        return {"outcome": "wrong", "said": traceback.format_exc(limit=-6)}
    return {"outcome": str(done) if way == "whole" else "read", "said": str(done)[:200]}


def main() -> None:
    """Serve the parent until it closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    asked = os.fdopen(os.dup(0))  # standard input itself is what some files come through
    for line in asked:
        job = json.loads(line)
        print(json.dumps(outcome(job["way"], Path(job["path"]), sys.argv[1])), file=answers)


if __name__ == "__main__":
    main()
