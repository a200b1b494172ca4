"""A report's file appears whole or not at all."""

from pathlib import Path

from vr_trt.runtime.publish import output_errors, partial_path, publish


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, replacing what was there; UsageError where that cannot be done."""
    with output_errors(path):
        partial_path(path).write_bytes(content)
        publish(path)
