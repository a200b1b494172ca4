"""The process in which one engine is built: `python -m vr_trt.engines.build_worker FD`.

It reads one request from standard input and writes one JSON object a line to the file descriptor
FD: {"doing": …}, then {"report": …} or {"error": …, "message": …}. What native libraries print goes
to standard output and standard error, which its parent points at the log. It ends when standard
input does, because its parent is gone then.
"""

import errno
import json
import os
import resource
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vr_trt import errors
from vr_trt.engines.builder import find_builder
from vr_trt.engines.spec import EngineSpec


def main(descriptor: int) -> None:
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # not on Linux: then the system chooses what it kills
        Path("/proc/self/oom_score_adj").write_text("1000")
    with os.fdopen(descriptor, "w", buffering=1) as pipe:
        print(json.dumps(_answer(request, pipe)), file=pipe)


def _answer(request: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    spec = EngineSpec.from_json(request["spec"])
    try:
        report = find_builder(spec.backend).build(
            spec,
            Path(request["onnx"]),
            Path(request["plan"]),
            lambda text: print(json.dumps({"doing": text}), file=pipe),
        )
    except errors.VrTrtError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        return {"error": "MemoryBudgetError", "message": f"out of memory building {spec.stage}"}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        name = error.filename or request["plan"]
        return {
            "error": "MemoryBudgetError" if full else "ModelError",
            "message": f"{name} cannot be written or read: {error.strerror}; set VR_TRT_CACHE to a "
            "folder with room",
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"report": asdict(report), "peak_bytes": peak}


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
