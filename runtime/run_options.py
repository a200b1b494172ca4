"""How a run is done, apart from networks and encoder."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from vr_trt.errors import UsageError

MOST_WORKERS = 1024
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What `Restorer.restore` may be told; the defaults restore the whole file anew."""

    overwrite: bool = False  # an output of that name, or a stopped run's journal
    resume: bool = False  # continue a stopped run
    range: str = ""  # A-B, see runtime/film_source.py; all frames if empty
    until: str = ""  # HH:MM, the time of day at which to stop; never if empty
    cuts: str = "auto"  # where shots begin: auto, none, or the name of a list
    rate: str = ""  # frames per second of a folder of images
    deinterlace: str | None = None  # see runtime/deinterlace.py; None refuses interlaced input
    decoder: str = "auto"  # auto, nvdec, software: see runtime/gpu_codecs.py
    trace: Path | None = None  # where to write a trace of every stage's calls
    report: Path | None = None  # where to write what the run did, as JSON
    workers: int = 0  # processes that share the work; 0: one, or as many as the cluster has
    gpus: tuple[int, ...] = ()  # a worker on each of these cards
    cluster: str | None = None  # workers on Ray: local, auto, or the address of a cluster

    def __post_init__(self) -> None:
        if self.workers < 0 or any(gpu < 0 for gpu in self.gpus):
            raise UsageError("the number of workers and the numbers of GPUs cannot be negative")
        if self.workers > MOST_WORKERS:
            raise UsageError(f"{self.workers} workers are too many: give {MOST_WORKERS} at most")
        if len(set(self.gpus)) < len(self.gpus):
            raise UsageError("--gpus: a card is named twice")
        if self.gpus and (self.workers or self.cluster is not None):
            raise UsageError(
                "--gpus starts a worker on each card: leave out --workers and --cluster"
            )
        if self.spread and self.trace is not None:
            raise UsageError("a trace shows one process: leave out --workers, --gpus and --cluster")

    @property
    def spread(self) -> bool:
        """Whether the work goes to processes of their own."""
        return self.workers > 1 or bool(self.gpus) or self.cluster is not None


def next_time(clock: str, now: datetime) -> datetime:
    """When the clock will next show HH:MM; UsageError for what is no time of day."""
    match = _CLOCK.fullmatch(clock.strip())
    if match is None:
        raise UsageError(f"{clock!r} is not a time of day: write HH:MM, like 07:30")
    then = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    return then if then > now else then + timedelta(days=1)


def parse_gpus(text: str) -> tuple[int, ...]:
    """`0,1,…`, or nothing. UsageError for what is neither."""
    words = text.split(",") if text else []
    if not all(re.fullmatch(r"\d{1,4}", word.strip(), re.ASCII) for word in words):
        raise UsageError(f"--gpus {text!r}: write the numbers of cards, like 0,1")
    return tuple(map(int, words))
