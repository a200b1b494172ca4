"""A build in a process of its own: when a native library crashes, that is one line of error."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vr_trt import errors
from vr_trt.engines.builder import LOG, PLAN, BuildReport
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import MemoryBudgetError, ModelError, VrTrtError

_LOOK_EVERY = 0.2  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A build in progress."""

    doing: str
    seconds: float
    bytes: int  # of memory held now


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A build that ended well."""

    report: BuildReport
    seconds: float  # process start included
    peak_bytes: int


def build_in_process(
    spec: EngineSpec, onnx_path: Path, folder: Path, watch: Callable[[Moment], None]
) -> Built:
    """Build `spec` into `folder` (the plan, what belongs to it, and the log).

    ModelError if the backend refuses the graph or crashes, MemoryBudgetError if it is killed for
    memory; the process is gone in any case when this returns or raises.
    """
    request = {"spec": spec.as_json(), "onnx": str(onnx_path), "plan": str(folder / PLAN)}
    start = time.monotonic()
    with (folder / LOG).open("ab") as log:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "vr_trt.engines.build_worker", str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                    start_new_session=True,  # Ctrl-C is for the parent, which ends the child
                )
            finally:
                os.close(writing)
            try:
                answer = _conversation(process, pipe, request, watch)
            finally:
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
    return _outcome(spec, answer, process.returncode, time.monotonic() - start)


def _conversation(
    process: "subprocess.Popen[bytes]",
    pipe: BinaryIO,
    request: dict[str, Any],
    watch: Callable[[Moment], None],
) -> dict[str, Any]:
    """Its last message; empty where it ended without one."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it died at once; why is in its return code
        pass
    doing, start, answer = "starting", time.monotonic(), {}
    for line in _lines(pipe):
        if line:
            answer = json.loads(line)
            doing = answer.get("doing", doing)
        watch(Moment(doing=doing, seconds=time.monotonic() - start, bytes=_resident(process.pid)))
        if answer.keys() & {"report", "error"}:
            return answer
    process.wait()
    return {}


def _lines(pipe: BinaryIO) -> "Any":
    """Every line as it comes, and an empty one now and then; ends with the pipe."""
    os.set_blocking(pipe.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_EVERY):
                yield b""
                continue
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            yield from lines


def _resident(pid: int) -> int:
    """Bytes of memory that the process holds; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _outcome(spec: EngineSpec, answer: dict[str, Any], code: int, seconds: float) -> Built:
    if "report" in answer:
        report = BuildReport(**answer["report"])
        return Built(report=report, seconds=seconds, peak_bytes=answer["peak_bytes"])
    if "error" in answer:
        kind = getattr(errors, answer["error"], VrTrtError)
        raise kind(answer["message"])
    if code == -signal.SIGKILL:
        raise MemoryBudgetError(
            f"the build of {spec.stage} for {spec.backend} was killed, most likely for want of "
            "memory: free memory, or build a smaller profile"
        )
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    raise ModelError(
        f"{spec.backend} crashed while it built {spec.stage} ({cause}): report this with the graph, "
        "or choose another --backend"
    )
