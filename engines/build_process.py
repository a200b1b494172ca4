"""A build in a process of its own: when a native library crashes, that is one line of error."""

import json
import os
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
from vr_trt.engines.child import Moment, lines, resident_bytes
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import MemoryBudgetError, ModelError, VrTrtError


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
    if answer:
        return _outcome(answer, time.monotonic() - start)
    raise _crash(spec, process.returncode, folder / LOG)


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
    for line in lines(pipe):
        if line:
            answer = json.loads(line)
            doing = answer.get("doing", doing)
        watch(
            Moment(doing=doing, seconds=time.monotonic() - start, bytes=resident_bytes(process.pid))
        )
        if answer.keys() & {"report", "error"}:
            return answer
    process.wait()
    return {}


def _outcome(answer: dict[str, Any], seconds: float) -> Built:
    if "error" in answer:
        kind = getattr(errors, answer["error"], VrTrtError)
        raise kind(answer["message"])
    report = BuildReport(**answer["report"])
    return Built(report=report, seconds=seconds, peak_bytes=answer["peak_bytes"])


def _crash(spec: EngineSpec, code: int, log: Path) -> VrTrtError:
    if code == -signal.SIGKILL:
        return MemoryBudgetError(
            f"the build of {spec.stage} for {spec.backend} was killed, most likely for want of "
            "memory: free memory, or build a smaller profile"
        )
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = f"; its last words: {said[-1].strip()[:300]}" if said else ""
    return ModelError(
        f"{spec.backend} crashed while it built {spec.stage} ({cause}): report this with the graph, "
        f"or choose another --backend{last}"
    )
