"""How a run is done, apart from the network and the encoder."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from vr_trt.errors import UsageError

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What `Restorer.restore` may be told; the defaults restore the whole file anew."""

    overwrite: bool = False  # an output of that name, or a stopped run's journal
    resume: bool = False  # go on where a stopped run ended
    range: str = ""  # A-B, see runtime/film_source.py; all frames if empty
    until: str = ""  # HH:MM by the clock on the wall, when to stop; never if empty
    cuts: str = "auto"  # where shots begin: auto, none, or the name of a list
    rate: str = ""  # frames a second of a folder of images
    deinterlace: str | None = None  # frame, field, off; None refuses interlaced input
    decoder: str = "auto"  # auto, nvdec, software: see runtime/gpu_codecs.py
    trace: Path | None = None  # where to write a trace of every stage's calls
    report: Path | None = None  # where to write what the run did, as JSON


def next_time(clock: str, now: datetime) -> datetime:
    """When the clock will next show HH:MM; UsageError for what is no time of day."""
    match = _CLOCK.fullmatch(clock.strip())
    if match is None:
        raise UsageError(f"{clock!r} is no time of day: write HH:MM, like 07:30")
    then = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    return then if then > now else then + timedelta(days=1)
