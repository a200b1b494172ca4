"""A report's file appears whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_trt.runtime.publish import output_errors, partial_path, publish


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, replacing what was there; UsageError where that cannot be done."""
    with output_errors(path):
        partial_path(path).write_bytes(content)
        publish(path)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """The same of a measurement's result; a folder that is not there is made."""
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
